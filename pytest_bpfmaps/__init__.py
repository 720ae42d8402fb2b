"""Test BPF programs with pytest: compile, load into a real kernel, assert on typed maps and events."""

from __future__ import annotations

from . import errors as _errors
from .errors import *  # noqa: F403
