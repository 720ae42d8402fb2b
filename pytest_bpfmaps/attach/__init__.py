"""Attaches programs to their targets; links keep them there."""

from __future__ import annotations

from typing import Any

Target = dict[str, Any]
"""The keywords by which a user names a target: ``interface="veth0"``."""
