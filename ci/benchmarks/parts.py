"""A plugin for pytest that tells where the time of a run in a guest goes.

    PYTHONPATH=ci/benchmarks python -m pytest -p parts --bpf-kernel=6.1

It prints seconds of wall time, and expects that one kernel is chosen.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import pytest

times: dict[str, float] = {}


def _started() -> float:
    """Returns when this process was started, as `time.time` counts (proc_pid_stat(5))."""
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def pytest_xdist_setupnodes() -> None:
    times["pytest on the host"] = time.time()


def pytest_testnodeready(node: Any) -> None:
    from pytest_bpfmaps.matrix.items import GUESTS

    now = time.time()
    entries = node.config.stash[GUESTS].journal.entries(node.gateway.spec.id)  # none of the host's worker
    for entry in entries[-1:]:
        times[f"ready ({entry.seconds:.2f} of it: the restored guest mounts), the worker's pytest"] = now


def pytest_xdist_node_collection_finished(node: Any) -> None:
    if node.gateway.spec.id != "host":
        times["collection"] = time.time()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "setup":
        times.setdefault("until the first test", report.start)  # the guest's clock is the host's
    times["tests"] = report.stop


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    before = _started()
    for part, then in times.items():
        print(f"{then - before:6.2f} s  {part}", file=sys.__stderr__)
        before = then
    print(f"{time.time() - before:6.2f} s  the guest's end, report", file=sys.__stderr__)
