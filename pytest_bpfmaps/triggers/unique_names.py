"""Makes names that no other test run on this machine has."""

from __future__ import annotations

import itertools
import os
import re

PREFIX = "bpfmaps"
_MADE = re.compile(rf"(?:^|/){PREFIX}-(?:[a-z]+\d+-)?(\d+)-\d+(?:-|/|$)")
_numbers = itertools.count()


def unique_name(label: str = "") -> str:
    """Returns ``bpfmaps-gw0-1234-0-label``: pytest-xdist's worker if there is one, the process, a number."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    number = f"{next(_numbers)}"
    return "-".join(part for part in (PREFIX, worker, f"{os.getpid()}", number, label) if part)


def is_of_another_process(path: str) -> bool:
    """Returns whether `unique_name` of another process made a part of the path: another worker of the run."""
    return any(int(pid) != os.getpid() for pid in _MADE.findall(path))
