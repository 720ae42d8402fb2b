"""Which tests are BPF tests, for which kernels, and by which options."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pytest_bpfmaps.matrix import HOST

if TYPE_CHECKING:
    from pytest_bpfmaps.cost.map_recorder import MapRecorder
    from pytest_bpfmaps.cost.map_warnings import MapReader
    from pytest_bpfmaps.cost.recorder import Recorder
    from pytest_bpfmaps.coverage.recording import Recording
    from pytest_bpfmaps.matrix.selection import Selection
    from pytest_bpfmaps.matrix.xdist_session import Workers


class GuestRun(Protocol):
    """The tests that run in guests; see `pytest_bpfmaps.matrix.guests.Guests`."""

    journal: Any

    def header(self) -> list[str]: ...
    def begin(self, session: pytest.Session) -> None: ...


class Collected:
    """Watches the collection of this process. Guests and other workers get their tests from it."""

    def __init__(self, config: pytest.Config) -> None:
        self.skipped: list[str] = []  # files, relative to the root folder
        self._known: list[object] = []
        self._whole = not any("::" in argument for argument in config.args)
        self._session: pytest.Session | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keeps the session, which must know how many tests there are."""
        self._session = session

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Notes the files that were not collected. A guest may be able to collect them."""
        if report.failed:
            self._known.append(str(report.longrepr))
        elif report.skipped:
            self._known.append(report.longrepr)
            self.skipped.append(report.nodeid.partition("::")[0])

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Notes that tests were deselected."""
        self._whole = self._whole and not items

    def are_all_wanted(self) -> bool:
        """Returns whether all tests of the files are to be run."""
        return self._whole

    def known(self) -> list[object]:
        """Returns why files were not collected. Workers would report the same once more."""
        return self._known

    def location(self, test: str) -> tuple[str, int | None, str]:
        """Returns where a test is: its file, the line before that of its function, and its name."""
        items = () if self._session is None else self._session.items
        path, _, name = test.partition("::")
        found = (item.location for item in items if item.nodeid == test)
        return next(found, (path, None, name.replace("::", ".")))

    def tell(self, count: int) -> None:
        """Tells pytest how many tests there are.

        pytest-xdist tells it the count of one worker, and that worker may have none.
        """
        if self._session is not None:
            self._session.testscollected = count


TARGET = "_bpf_target"
SELECTION: pytest.StashKey[Selection] = pytest.StashKey()
NAMES: pytest.StashKey[tuple[str, ...]] = pytest.StashKey()  # the chosen kernels; empty when nobody chose
KERNEL: pytest.StashKey[str] = pytest.StashKey()  # the kernel that this worker runs on
GUESTS: pytest.StashKey[GuestRun] = pytest.StashKey()
WORKERS: pytest.StashKey[Workers] = pytest.StashKey()  # pytest-xdist's workers, when they have to wait
COLLECTED: pytest.StashKey[Collected] = pytest.StashKey()
COSTS: pytest.StashKey[Recorder] = pytest.StashKey()  # records costs in this process, if asked to
MAP_USAGE: pytest.StashKey[MapRecorder] = pytest.StashKey()  # looks at maps in this process, if asked to
MAP_READER: pytest.StashKey[MapReader] = pytest.StashKey()  # warns of wrong use of maps, if asked to
RECORDING: pytest.StashKey[Recording] = pytest.StashKey()  # counts for coverage, once an object is loaded

KERNEL_PROPERTY, MISSING_PROPERTY = "bpf_kernel", "bpf_missing"
"""Properties of reports. A worker tells by them the kernel of a test, and a feature that it lacks."""

_OF_GUESTS = (
    *("bpf_vm", "bpf_vm_cpus", "bpf_vm_memory", "bpf_vm_jobs", "bpf_vm_network", "bpf_vm_timeout"),
    *("bpf_clang", "bpf_vmlinux"),
)


def option(config: pytest.Config, name: str) -> Any:
    """Returns an option's value: the command line's, else the configuration file's, else the default."""
    value = config.getoption(name)
    return config.getini(name) if value is None or value == [] else value


def guest_options(config: pytest.Config) -> dict[str, Any]:
    """Returns the options of guests, by their names in the configuration file."""
    return {name: option(config, name) for name in _OF_GUESTS}


def only_distributes(config: pytest.Config) -> bool:
    """Returns whether pytest-xdist's workers collect, and this process does not."""
    return config.getoption("dist", "no") != "no" and bool(config.getoption("tx"))


def uses_bpf(names: Sequence[str]) -> bool:
    """Returns whether a test with these fixtures is a BPF test."""
    return any(name == "bpf" or name.startswith("bpf_") for name in names)


def is_bpf_item(item: pytest.Item) -> bool:
    """Returns whether the item is a BPF test, or a program of a collected source."""
    return hasattr(item, "bpf_kernel") or uses_bpf(getattr(item, "fixturenames", ()))


def chosen(config: pytest.Config) -> tuple[str, ...]:
    """Returns the names of the chosen kernels; none when nobody chose."""
    names: tuple[str, ...] = config.stash.get(NAMES, ())
    return names


def fitting(config: pytest.Config, node: pytest.Collector | pytest.Item) -> list[str]:
    """Returns the chosen kernels that the test's ``bpf_kernels`` markers allow."""
    names = chosen(config) or (HOST,)
    if node.get_closest_marker("bpf_kernels") is None:
        return list(names)
    from pytest_bpfmaps.matrix.bpf_kernels import wanted_kernels

    return wanted_kernels(node, {name: _release(config, name) for name in names})


def _release(config: pytest.Config, name: str) -> str:
    """Returns the release of a chosen kernel.

    The kernel of this process is the running one: the host's here, a guest's own in a guest.
    """
    if SELECTION in config.stash and name != HOST:
        return next(g.kernel.release for g in config.stash[SELECTION].guests if g.kernel.name == name)
    if name == config.stash.get(KERNEL, HOST):
        return os.uname().release
    return str(getattr(config, "workerinput", {}).get("bpfmaps", {}).get("releases", {}).get(name, ""))


def kernels_here(config: pytest.Config, node: pytest.Collector | pytest.Item) -> list[str]:
    """Returns the kernels of `fitting` that this process makes items for."""
    kernels = fitting(config, node)
    here = config.stash.get(KERNEL, None)
    if here in kernels and here != HOST:
        return [here]  # the worker would drop items for others, and emulation makes each item costly
    return kernels


def kernel_of(item: pytest.Item) -> str:
    """Returns the name of the kernel that the item is for."""
    named = getattr(item, "bpf_kernel", None)  # a program of a collected source has it
    if named is not None:
        return str(named)
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get(TARGET, HOST)) if callspec is not None else HOST


def is_strict(config: pytest.Config) -> bool:
    """Returns whether the run is strict (``--bpf-strict``): a skip has to be justified."""
    return bool(config.getoption("bpf_strict") or config.getini("bpf_strict"))


def without_kernel(nodeid: str, kernel: str) -> str:
    """Returns a test's node id without the kernel that the test is for."""
    if nodeid.endswith(f"[{kernel}]"):
        return nodeid.removesuffix(f"[{kernel}]")
    return nodeid.removesuffix(f"-{kernel}]") + "]" if nodeid.endswith(f"-{kernel}]") else nodeid


def with_kernel(nodeid: str, kernel: str) -> str:
    """Returns a test's node id with the kernel that the test is for; the reverse of `without_kernel`."""
    return f"{nodeid[:-1]}-{kernel}]" if nodeid.endswith("]") else f"{nodeid}[{kernel}]"


def may_never_run(config: pytest.Config, test: str) -> bool:
    """Returns whether a glob of ``bpf_allow_never_ran`` fits the test, which is a node id without its
    kernel.
    """
    from fnmatch import fnmatchcase

    return any(fnmatchcase(test, glob) for glob in config.getini("bpf_allow_never_ran"))


def named_properties(report: Any) -> Iterator[tuple[str, Any]]:
    """Yields names and values of a report's properties. A report without a test has none.

    A test may add what is no pair, and that is left out.
    """
    for each in getattr(report, "user_properties", ()):
        if isinstance(each, tuple | list) and len(each) == 2 and isinstance(each[0], str):
            yield each[0], each[1]


def properties(report: Any) -> dict[str, Any]:
    """Returns a report's properties by name; the last one of a name."""
    return dict(named_properties(report))
