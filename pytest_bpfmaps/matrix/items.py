"""Which tests are BPF tests, for which kernels, and by which options."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pytest_bpfmaps.matrix import HOST

if TYPE_CHECKING:
    from pytest_bpfmaps.matrix.selection import Selection
    from pytest_bpfmaps.matrix.xdist_session import Workers


class GuestRun(Protocol):
    """The tests that run in guests; see `pytest_bpfmaps.matrix.guests.Guests`."""

    journal: Any

    def header(self) -> list[str]: ...
    def begin(self, session: pytest.Session) -> None: ...


class Collected:
    """Watches the collection that guests' and other workers' tests are taken from."""

    def __init__(self, config: pytest.Config) -> None:
        self.skipped: list[str] = []  # files, relative to the root folder
        self._known: list[object] = []
        self._whole = not any("::" in argument for argument in config.args)
        self._session: pytest.Session | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Remember the session, which must know how many tests there are."""
        self._session = session

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note files that were not collected; a guest may be able to."""
        if report.failed:
            self._known.append(str(report.longrepr))
        elif report.skipped:
            self._known.append(report.longrepr)
            self.skipped.append(report.nodeid.partition("::")[0])

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note that there was a choice."""
        self._whole = self._whole and not items

    def are_all_wanted(self) -> bool:
        """Whether all tests of the files are to be run."""
        return self._whole

    def known(self) -> list[object]:
        """Why files were not collected, as workers would report it once more."""
        return self._known

    def tell(self, count: int) -> None:
        """pytest-xdist tells pytest the count of one worker, and that may have none: tell it that of all."""
        if self._session is not None:
            self._session.testscollected = count


TARGET = "_bpf_target"
SELECTION: pytest.StashKey[Selection] = pytest.StashKey()
NAMES: pytest.StashKey[tuple[str, ...]] = pytest.StashKey()  # the chosen kernels; empty when nobody chose
KERNEL: pytest.StashKey[str] = pytest.StashKey()  # the one that this worker runs in
GUESTS: pytest.StashKey[GuestRun] = pytest.StashKey()
WORKERS: pytest.StashKey[Workers] = pytest.StashKey()  # pytest-xdist's, when they have to wait
COLLECTED: pytest.StashKey[Collected] = pytest.StashKey()

KERNEL_PROPERTY, MISSING_PROPERTY = "bpf_kernel", "bpf_missing"
"""Properties of reports, by which workers tell the kernel of a test, and a feature that it lacks."""

# option, type on the command line, type in the configuration file, default, help
OPTIONS: tuple[tuple[str, type, Any, Any, str], ...] = (
    ("vm-cpus", int, "int", 2, "CPUs of a guest (default: 2)."),
    ("vm-memory", str, "string", "1G", "memory of a guest (default: 1G)."),
    (
        "vm-jobs",
        int,
        "int",
        0,
        "guests that run at a time (default: as many as processors and memory allow).",
    ),
    (
        "vm-network",
        bool,
        "bool",
        False,
        "give guests a network, through QEMU's user mode: the host is 10.0.2.2 (default: they have only lo).",
    ),
    (
        "vm-timeout",
        float,
        "float",
        60.0,
        "seconds that a guest may take to boot, and for each test or other step (default: 60; three times "
        "that where guests are emulated).",
    ),
    ("clang", str, "string", "", "clang to compile with (default: $CLANG, else the newest on the PATH)."),
    (
        "vmlinux",
        str,
        "string",
        "newest",
        "what vmlinux.h comes from where the project has none: newest (kernel of the run and the catalogue), "
        "a kernel's name, a path to a header or BTF, or per-kernel: an object for each (default: newest).",
    ),
)


def option(config: pytest.Config, name: str) -> Any:
    """An option's value: the command line's, else the configuration file's, else the default."""
    value = config.getoption(name)
    return config.getini(name) if value is None or value == [] else value


def guest_options(config: pytest.Config) -> dict[str, Any]:
    """The options of guests, by the names of their twins in the configuration file."""
    names = ["bpf_vm", *(f"bpf_{name.replace('-', '_')}" for name, *_ in OPTIONS)]
    return {name: option(config, name) for name in names}


def uses_bpf(names: Sequence[str]) -> bool:
    """Whether a test with these fixtures is a BPF test."""
    return any(name == "bpf" or name.startswith("bpf_") for name in names)


def is_bpf_item(item: pytest.Item) -> bool:
    """Whether it is a BPF test, or a collected source's."""
    return hasattr(item, "bpf_kernel") or uses_bpf(getattr(item, "fixturenames", ()))


def chosen(config: pytest.Config) -> tuple[str, ...]:
    """The names of the chosen kernels; empty when nobody chose."""
    names: tuple[str, ...] = config.stash.get(NAMES, ())
    return names


def fitting(config: pytest.Config, node: pytest.Collector | pytest.Item) -> list[str]:
    """The chosen kernels that the test's ``bpf_kernels`` markers leave."""
    names = chosen(config) or (HOST,)
    if node.get_closest_marker("bpf_kernels") is None:
        return list(names)
    from pytest_bpfmaps.matrix.bpf_kernels import wanted_kernels

    return wanted_kernels(node, {name: _release(config, name) for name in names})


def _release(config: pytest.Config, name: str) -> str:
    """The release of a chosen kernel; in a guest its own is the running one, as the host's is elsewhere."""
    if SELECTION in config.stash and name != HOST:
        return next(g.kernel.release for g in config.stash[SELECTION].guests if g.kernel.name == name)
    if name == config.stash.get(KERNEL, HOST):
        return os.uname().release
    return str(getattr(config, "workerinput", {}).get("bpfmaps", {}).get("releases", {}).get(name, ""))


def kernels_here(config: pytest.Config, node: pytest.Collector | pytest.Item) -> list[str]:
    """The kernels of `fitting` that this process makes items for."""
    kernels = fitting(config, node)
    here = config.stash.get(KERNEL, None)
    if here in kernels and here != HOST:
        return [here]  # the others would be dropped by the worker, after their cost under emulation
    return kernels


def kernel_of(item: pytest.Item) -> str:
    """The name of the kernel that the item is for."""
    named = getattr(item, "bpf_kernel", None)  # of a collected source
    if named is not None:
        return str(named)
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get(TARGET, HOST)) if callspec is not None else HOST


def is_strict(config: pytest.Config) -> bool:
    """Whether a skip has to be justified."""
    return bool(config.getoption("bpf_strict") or config.getini("bpf_strict"))


def without_kernel(nodeid: str, kernel: str) -> str:
    """A test's node id without the kernel that it is for."""
    if nodeid.endswith(f"[{kernel}]"):
        return nodeid.removesuffix(f"[{kernel}]")
    return nodeid.removesuffix(f"-{kernel}]") + "]" if nodeid.endswith(f"-{kernel}]") else nodeid


def with_kernel(nodeid: str, kernel: str) -> str:
    """The reverse: a test's node id where a kernel was chosen for it."""
    return f"{nodeid[:-1]}-{kernel}]" if nodeid.endswith("]") else f"{nodeid}[{kernel}]"


def may_never_run(config: pytest.Config, test: str) -> bool:
    """Whether ``bpf_allow_never_ran`` has a glob for the test, which is a node id without its kernel."""
    from fnmatch import fnmatchcase

    return any(fnmatchcase(test, glob) for glob in config.getini("bpf_allow_never_ran"))
