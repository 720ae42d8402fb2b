"""Divides the tests that the host collected among the workers. A *lane* is what one worker runs.

All tests of the host are one lane, and pytest-xdist may share it out among several workers. All tests of
another kernel are one lane, too. A test that needs a fresh kernel has a lane of its own.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.matrix import HOST

FRESH = "bpf_fresh_kernel"


@dataclass
class Lane:
    """A guest's worker collects `files` (relative to the root folder) and runs their tests.

    It leaves out the tests in `without`, because they have lanes of their own or can't run. When `only` is
    given, it runs those tests, and all tests of the files `unsure`. The host skipped these files as a whole,
    and the guest may not.
    """

    name: str
    kernel: str
    tests: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    only: list[str] | None = None
    without: list[str] = field(default_factory=list)

    def orders(self) -> dict[str, Any]:
        """Returns what the worker is told."""
        lists = {part: getattr(self, part) for part in ("files", "unsure", "only", "without")}
        return {"kernel": self.kernel, **{part: ids for part, ids in lists.items() if ids}}


def divide(
    items: Iterable[tuple[pytest.Item, str, str]],
    kernels: Sequence[str],
    root: Path,
    *,
    unsure: Sequence[str] = (),
    unable: Container[str] = (),
    all_wanted: bool = True,
) -> list[Lane]:
    """Returns the lanes that have anything to do: the host's, one for each kernel, one for some single tests.

    Each of `items` comes with its kernel and with the node id that it has there. The tests `unable` (by their
    node id here) are not to be run. `all_wanted` says that `items` has every test of their files.
    """
    main = {kernel: Lane(kernel, kernel) for kernel in (HOST, *kernels)}
    single: list[Lane] = []
    for item, kernel, test in items:
        lane = main[kernel]
        if item.nodeid in unable:
            lane.without.append(test)
            continue
        if kernel != HOST and item.get_closest_marker(FRESH) is not None:
            lane.without.append(test)
            count = sum(one.kernel == kernel for one in single)
            lane = Lane(f"{kernel}-fresh{count + 1}", kernel, only=[test])
            single.append(lane)
        lane.tests.append(test)
        file = os.path.relpath(item.path, root)
        if kernel != HOST and file not in lane.files:
            lane.files.append(file)
    for kernel in kernels:
        lane = main[kernel]
        lane.unsure = [file for file in unsure if file not in lane.files]
        lane.files += lane.unsure
        lane.only = None if all_wanted else lane.tests
    return [lane for lane in (*main.values(), *single) if lane.tests or lane.files]
