"""Finds out what the running kernel is, and what it lets this process do."""

from __future__ import annotations
