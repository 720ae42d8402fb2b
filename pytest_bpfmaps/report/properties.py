"""Reads the properties of a report: what tests and this package add to ``user_properties``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def named_properties(report: Any) -> Iterator[tuple[str, Any]]:
    """Yields names and values. A report without a test has none, and a test may add what is no pair."""
    for each in getattr(report, "user_properties", ()):
        if isinstance(each, tuple | list) and len(each) == 2 and isinstance(each[0], str):
            yield each[0], each[1]


def properties(report: Any) -> dict[str, Any]:
    """Returns them by name; the last one of a name."""
    return dict(named_properties(report))
