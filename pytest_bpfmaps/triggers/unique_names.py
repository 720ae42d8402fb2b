"""Makes names that no other test run on this machine has."""

from __future__ import annotations

import itertools
import os

PREFIX = "bpfmaps"
_numbers = itertools.count()


def unique_name(label: str = "") -> str:
    """Returns ``bpfmaps-gw0-1234-0-label``: pytest-xdist's worker if there is one, the process, a number."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    number = f"{next(_numbers)}"
    return "-".join(part for part in (PREFIX, worker, f"{os.getpid()}", number, label) if part)
