"""Boots each kernel of the catalogue, and tells how it came up: ``bpfmaps doctor --vm``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from ..errors import VmError
from ..vm.acceleration import judge
from ..vm.booting import boot, one_line
from ..vm.catalogue import Catalogue
from ..vm.kernel import Kernel
from ..vm.progress import Progress
from ..vm.qemu import Shape
from ..vm.warm import forget_failure
from ..vm.ways import AUTO
from .check import Check, State

MORE_TIME = "`bpfmaps doctor --vm --timeout SECONDS` gives it more time"


def boot_checks(progress: Progress, timeout: float) -> Iterator[Check]:
    """A row for each kernel. Each is booted once; where the usual way fails, the others are tried.

    A boot may take `timeout` seconds, three times that where guests are emulated.
    """
    rows = [_boot(kernel, progress, timeout) for kernel in Catalogue()]
    none = not any(row.state is State.OK or row.found.startswith("ready") for row in rows)
    yield from (replace(row, state=State.MISSING) if none else row for row in rows)


def _boot(kernel: Kernel, progress: Progress, timeout: float) -> Check:
    name = f"{kernel.name} boots"
    progress.step(f"{kernel.name}: booting")
    began = time.monotonic()
    try:
        shape = Shape(kvm=judge(kernel).kvm)
        forget_failure(kernel, shape)
        booted = boot(kernel, AUTO, shape, timeout, fix=MORE_TIME)
    except VmError as error:
        return Check("kernels", name, State.LIMITED, one_line(error), error.fix or "")
    finally:
        progress.clear()
    seconds = time.monotonic() - began
    booted.machine.close()
    found = f"ready in {seconds:.1f} s, {booted.attempt}"
    if booted.earlier is None:
        return Check("kernels", name, State.OK, found)
    found += f"; the usual start failed: {booted.earlier.why}"
    return Check("kernels", name, State.LIMITED, found, f"bpfmaps vm prepare {kernel.name} shows the console")
