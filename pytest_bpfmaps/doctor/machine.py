"""Makes all checks, and decides whether BPF tests can run here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pytest_bpfmaps.doctor.check import Check, CheckState
from pytest_bpfmaps.doctor.guests import catalogue_checks, machine_checks
from pytest_bpfmaps.doctor.host import (
    compile_checks,
    kernel_checks,
    library_checks,
    mount_checks,
    tracing_checks,
)
from pytest_bpfmaps.vm.kernels.progress import Progress

_AREAS = ("compile", "load", "network", "trace", "vm", "kernels")


def all_checks(clang: str | None = None, *, boot: float | None = None) -> Iterator[Check]:
    """Makes every check, area by area.

    With `boot` it boots each kernel. That takes seconds to minutes; one boot may take `boot` seconds.
    """
    checks = list(_checks(clang))
    if boot is not None:
        from pytest_bpfmaps.doctor.boots import boot_checks

        checks += boot_checks(Progress(), boot)
    return iter(sorted(checks, key=lambda check: _AREAS.index(check.area)))


def _checks(clang: str | None) -> Iterator[Check]:
    yield from compile_checks(clang)
    libraries = list(library_checks())
    yield from libraries
    if all(c.state is CheckState.OK for c in libraries):
        yield from kernel_checks()
    yield from mount_checks()
    yield from tracing_checks()
    yield from machine_checks()
    yield from catalogue_checks()


def can_test(checks: Iterable[Check]) -> bool:
    """Returns whether BPF tests can run at all: they compile, and load here or in a virtual machine."""
    areas: dict[str, set[CheckState]] = {}
    for check in checks:
        areas.setdefault(check.area, set()).add(check.state)

    def works(*names: str) -> bool:
        return not any(CheckState.MISSING in areas.get(name, {CheckState.MISSING}) for name in names)

    host = works("compile", "load") and areas.get("network") == {CheckState.OK}
    return host or works("compile", "load", "vm", "kernels")
