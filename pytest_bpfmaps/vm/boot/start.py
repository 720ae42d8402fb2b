"""Starts a guest, and waits until it is ready. Where one way to start it fails, it tries the next.

So a run still tests where QEMU, KVM or the disk has a fault. It is slower then, and a line says why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from pytest_bpfmaps.cache.stored_files import own
from pytest_bpfmaps.errors import BpfError, VmBootError, VmError
from pytest_bpfmaps.paths import cache_dir
from pytest_bpfmaps.vm.boot.backends import AUTO, VIRTME, WARM, way
from pytest_bpfmaps.vm.boot.boot_progress import MORE_TIME, wait_for_word
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.architecture import architecture
from pytest_bpfmaps.vm.machine.kvm import Verdict
from pytest_bpfmaps.vm.machine.qemu import NOTHING_MORE, Addition, Machine, MachineConfig, find_qemu
from pytest_bpfmaps.vm.machine.qemu_features import features
from pytest_bpfmaps.vm.protocol.rpc import Lines

DAMAGED = "its saved state was damaged, and is deleted"
_MOST_BEFORE = 12  # lines of an earlier attempt's console


@dataclass(frozen=True)
class Attempt:
    """One way to start a guest: a name of `backends.MODULES`, and its shape."""

    way: str
    shape: MachineConfig

    def __str__(self) -> str:
        speed = "with KVM" if self.shape.kvm else "emulated"
        return f"{speed}, from a saved state" if self.way == WARM else f"{speed}, booted by virtme-ng"

    def drop_if_damaged(self, kernel: Kernel) -> bool:
        """Deletes the state that the guest came from, if it has changed on the disk. Returns whether it had.

        A guest that hangs or dies may have done so because of that.
        """
        return self.way == WARM and bool(way(WARM).drop_if_damaged(kernel, self.shape))


@dataclass(frozen=True)
class Booted:
    """A guest that is ready: its machine, the lines to it, its kernel's release, and how it was started.

    `earlier` is why the usual way failed, if it did.
    """

    machine: Machine
    control: Lines
    release: str
    attempt: Attempt
    earlier: VmBootError | None = None

    def note(self, kernel: Kernel) -> str | None:
        """Returns a line that says how it was started, and why not as usual; None if it was as usual."""
        if self.earlier is None:
            return None
        return f"{kernel.name} is {self.attempt}, since the usual start failed: {self.earlier.why}"


def check(name: str, arch: str) -> None:
    """Raises VmError when a program is missing to start guests the way `name`, or the cache is read-only."""
    if not os.access(cache := own(cache_dir()), os.W_OK):
        raise VmError(
            "cannot start guests",
            on=f"with the cache {cache}",
            why="it can't be written to",
            fix="make it writable, or set BPFMAPS_CACHE to a folder that is",
        )
    features(find_qemu(arch)).check(architecture(arch))
    if name != AUTO:
        way(name).check(arch)
        return
    try:
        way(WARM).check(arch)
    except VmBootError:  # the other way may work
        way(VIRTME).check(arch)


def attempts(name: str, shape: MachineConfig) -> Iterator[Attempt]:
    """Gives what to try in turn: a named way alone, first with KVM and then without."""
    shapes = [shape, replace(shape, kvm=False)] if shape.kvm else [shape]
    first = WARM if name == AUTO else name
    yield from (Attempt(first, each) for each in shapes)
    if name == AUTO:
        yield Attempt(VIRTME, shapes[-1])


def boot(
    kernel: Kernel,
    name: str,
    shape: MachineConfig,
    timeout: float,
    fix: str = MORE_TIME,
    *,
    more: Addition = NOTHING_MORE,
    preparing: Callable[[Attempt], None] = lambda attempt: None,
) -> Booted:
    """Starts a guest with `kernel` the way `name`. On real hardware that may take `timeout` seconds.

    `fix` is the remedy for a time that is too short. QEMU gets `more`, unless KVM is used. `preparing` is
    called before a state is made. Raises VmError when nothing works.
    """
    earlier: VmBootError | None = None
    todo = list(attempts(name, shape))
    while todo:
        attempt = todo.pop(0)
        try:
            machine = _start(kernel, attempt, more, preparing, has_others=name == AUTO)
            return replace(_when_ready(machine, kernel, attempt, timeout, fix), earlier=earlier)
        except VmBootError as error:
            why = error.why or str(error)
            if attempt.way == WARM and way(WARM).note_failure(kernel, attempt.shape, why):
                error.why = "its saved state was damaged, and was made again"
                todo.insert(0, attempt)
            earlier = error if earlier is None else _both(error, earlier)
        except VmError as error:  # nothing else helps, except where the guest came from a damaged state
            if not attempt.drop_if_damaged(kernel):
                raise
            again = "its saved state was damaged, and was made again"
            earlier = VmBootError(error.what, on=error.on, why=again, fix=error.fix, details=error.details)
            todo.insert(0, attempt)
    assert earlier is not None
    raise earlier


def _start(
    kernel: Kernel,
    attempt: Attempt,
    more: Addition,
    preparing: Callable[[Attempt], None],
    *,
    has_others: bool,
) -> Machine:
    module = way(attempt.way)
    if has_others and attempt.way == WARM:
        module.check_not_failed(kernel, attempt.shape)
    tells = {"preparing": partial(preparing, attempt)} if attempt.way == WARM else {}
    machine: Machine = module.start(
        kernel, attempt.shape, NOTHING_MORE if attempt.shape.kvm else more, **tells
    )
    return machine


def _when_ready(machine: Machine, kernel: Kernel, attempt: Attempt, timeout: float, fix: str) -> Booted:
    """Waits until the guest says that it is ready."""
    try:
        control = Lines(machine.control.fileno())
        limit = Verdict(attempt.shape.kvm).stretch(timeout)
        hello = wait_for_word(machine, kernel, control, "hello", limit, fix=fix)
        return Booted(machine, control, hello["release"], attempt)
    except BaseException:
        machine.close()
        raise


def _both(error: VmBootError, earlier: VmBootError) -> VmBootError:
    before = "\n".join([one_line(earlier), *(earlier.details or "").splitlines()[-_MOST_BEFORE:]])
    details = f"{error.details or ''}\n--- tried before\n{before}"
    return VmBootError(error.what, on=error.on, why=error.why, fix=error.fix, details=details.lstrip("\n"))


def one_line(error: BpfError) -> str:
    """Returns the error in one line, without details and without advice."""
    head = " ".join(part for part in (error.what, error.on) if part)
    return f"{head.removesuffix(':')}: {error.why}" if error.why else head
