"""Attaching programs to their targets, and the links that keep them there."""

from __future__ import annotations

from typing import Any

Target = dict[str, Any]
"""What a user says of a target, by keyword: ``interface="veth0"``."""
