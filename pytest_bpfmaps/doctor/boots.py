"""Boots each kernel of the catalogue, and tells how that went: ``bpfmaps doctor --vm``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from pytest_bpfmaps.doctor.check import Check, CheckState
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.boot.backends import AUTO
from pytest_bpfmaps.vm.boot.start import boot, one_line
from pytest_bpfmaps.vm.boot.warm import forget_failure
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.kernels.progress import Progress
from pytest_bpfmaps.vm.machine.kvm import judge
from pytest_bpfmaps.vm.machine.qemu import MachineConfig

MORE_TIME = "`bpfmaps doctor --vm --timeout SECONDS` gives it more time"


def boot_checks(progress: Progress, timeout: float) -> Iterator[Check]:
    """Boots each kernel once, and yields a row for each. If the usual way to start fails, it tries others.

    A boot may take `timeout` seconds, or three times as long where guests are emulated.
    """
    rows = [_boot(kernel, progress, timeout) for kernel in Catalogue()]
    none = not any(row.state is CheckState.OK or row.found.startswith("ready") for row in rows)
    yield from (replace(row, state=CheckState.MISSING) if none else row for row in rows)


def _boot(kernel: Kernel, progress: Progress, timeout: float) -> Check:
    name = f"{kernel.name} boots"
    progress.step(f"{kernel.name}: booting")
    began = time.monotonic()
    try:
        shape = MachineConfig(kvm=judge(kernel).kvm)
        forget_failure(kernel, shape)
        booted = boot(kernel, AUTO, shape, timeout, fix=MORE_TIME)
    except VmError as error:
        return Check("kernels", name, CheckState.LIMITED, one_line(error), error.fix or "")
    finally:
        progress.clear()
    seconds = time.monotonic() - began
    booted.machine.close()
    found = f"ready in {seconds:.1f} s, {booted.attempt}"
    if booted.earlier is None:
        return Check("kernels", name, CheckState.OK, found)
    found += f"; the usual start failed: {booted.earlier.why}"
    return Check(
        "kernels", name, CheckState.LIMITED, found, f"bpfmaps vm prepare {kernel.name} shows the console"
    )
