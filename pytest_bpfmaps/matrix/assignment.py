"""Decides which tests go to which worker, from the host's collection. A *lane* is what one worker runs.

The host's tests are one lane, which pytest-xdist may share out among several workers. Each kernel's are one,
and so is each test that wants a kernel of its own.
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

    Without those of `without`, which have lanes of their own; with `only` no others, but for those of the
    files `unsure`, which were skipped whole on the host, and may not be in the guest.
    """

    name: str
    kernel: str
    tests: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    only: list[str] | None = None
    without: list[str] = field(default_factory=list)

    def orders(self) -> dict[str, Any]:
        """What the worker is told."""
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
    """The lanes that have anything to do: the host's, those of kernels, those of single tests.

    `items` come with their kernel and with the node id that they have there; those `unable` (by their id
    here) are not to be run. `all_wanted`: each test of their files is among them.
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
