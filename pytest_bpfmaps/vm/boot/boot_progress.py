"""Notices a guest that makes no progress while it boots, and keeps what a person needs to look into it."""

from __future__ import annotations

import os
import re
import select
import shlex
import time
from pathlib import Path
from typing import Any

from pytest_bpfmaps import paths
from pytest_bpfmaps.cache.stored_files import write
from pytest_bpfmaps.errors import VmBootError, VmError
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.capacity import size
from pytest_bpfmaps.vm.machine.child_process import stopped_process, waited_for_processor
from pytest_bpfmaps.vm.machine.qemu import Machine, advice, is_final
from pytest_bpfmaps.vm.protocol.rpc import Lines

STALL_SECONDS = 20.0
"""How long a guest may be silent, at least. The longest silence of a healthy boot without KVM is 2 s."""
_LOOK_SECONDS = 0.25  # how often the boot is checked
MORE_TIME = "--bpf-vm-timeout gives it more time"
_MOST_KEPT = 1 << 20  # characters of a console
_SMALL = 512 << 20  # bytes of memory; Debian's kernels and Python need some 300 MB
_NO_MEMORY = re.compile(
    r"^.*(?:Out of memory|deadlocked on memory|oom-kill|page allocation failure|Cannot allocate memory"
    r"|cpio: write error: No space left|Initramfs unpacking failed).*$",
    re.MULTILINE,
)
GAPS = 10
"""How many times longer a silence may be than the longest one before it in this boot."""


class BootProgress:
    """Watches one machine until it is ready. A line on its console is progress, and so is a message from it.

    `limit` says how long a silence may be. Time in which QEMU waited for a processor, because the host is
    busy, does not count: field 2 of ``/proc/PID/schedstat`` (the kernel's ``sched-stats.rst``).
    """

    def __init__(self, machine: Machine, kernel: Kernel) -> None:
        self._machine = machine
        self._kernel = kernel
        self._seen = machine.console.size()
        self._longest = 0.0
        self._last = self.now()

    @property
    def limit(self) -> float:
        """Seconds of silence that count as a stall.

        It is at least `STALL_SECONDS`. It is longer where this QEMU was slow to start, as inside another
        emulated machine, and where this boot has been silent for longer before.
        """
        return max(STALL_SECONDS, self._machine.patience, GAPS * self._longest)

    def note(self) -> None:
        """Counts a message from the guest as progress."""
        now = self.now()
        self._longest = max(self._longest, now - self._last)
        self._last = now

    def check(self) -> None:
        """Raises VmBootError when there was no progress for `limit` seconds."""
        size = self._machine.console.size()
        if size != self._seen:
            self._seen = size
            self.note()
        elif self.now() - self._last > self.limit:
            why = (
                f"it made no progress for {self.limit:.0f} s: no new line on its console, no message from it"
            )
            raise if_stopped(self._machine, boot_error(self._machine, self._kernel, why))

    def now(self) -> float:
        """Returns `time.monotonic`, without the seconds in which QEMU waited for a processor."""
        return time.monotonic() - waited_for_processor(self._machine.process.pid)


def wait_for_word(
    machine: Machine, kernel: Kernel, control: Lines, word: str, timeout: float, *, fix: str = MORE_TIME
) -> Any:
    """Returns the value of the message `word` from a guest that boots, and ignores other messages.

    Raises VmBootError when the guest ends or makes no progress. Raises VmError when the message does not come
    within `timeout` seconds after the machine was started; then `fix` is the remedy. Time in which QEMU
    waited for a processor does not count.
    """
    progress = BootProgress(machine, kernel)
    ended = os.pidfd_open(machine.process.pid)
    try:
        while True:
            ready = select.select([control.fd, ended], [], [], _LOOK_SECONDS)[0]
            if progress.now() > machine.started + timeout:
                raise final(boot_error(machine, kernel, _too_late(machine, timeout), fix))
            if control.fd in ready and (message := control.receive()) is not None and word in message:
                return message[word]
            if ended in ready:
                raise _ended(machine, kernel)
            progress.check()
    finally:
        os.close(ended)


def _too_late(machine: Machine, timeout: float) -> str:
    waited = waited_for_processor(machine.process.pid)
    more = f", and {waited:.0f} s more in which QEMU waited for a processor" if waited >= 1 else ""
    return f"the guest was not ready after {timeout:g} s{more}"


def _ended(machine: Machine, kernel: Kernel) -> VmError:
    status, words = machine.process.wait(), machine.last_words()
    why = f"QEMU ended with status {status} before the guest was ready"
    if line := machine.console.telling_line():
        why += f", and its console says {line!r}"
    error = boot_error(machine, kernel, why, advice(words))
    return final(error) if is_final(words) else error


def if_stopped(machine: Machine, error: VmBootError) -> VmError:
    """Returns the same error. Where QEMU was stopped, returns one for which nothing else is tried."""
    stopped = stopped_process(machine.process.pid)
    if stopped is None:
        return error
    why = f"{error.why}; QEMU, process {stopped}, is stopped by a signal or a debugger"
    return VmError(error.what, on=error.on, why=why, fix="find out what stops it", details=error.details)


def final(error: VmBootError) -> VmError:
    """Returns the same error in a class for which no other way to start the guest is tried."""
    return VmError(error.what, on=error.on, why=error.why, fix=error.fix, details=error.details)


def boot_error(machine: Machine, kernel: Kernel, why: str, fix: str | None = None) -> VmBootError:
    """Returns the error for a guest that did not come up, with its last words.

    Keeps QEMU's command and the console in files.
    """
    kept, console = _keep(machine, kernel)
    said = machine.messages.tail(1)
    where = f"QEMU's command line is in {kept}, and the console in {console.name} beside it"
    if short := _short_of_memory(machine):
        why, fix = f"{why}; {short}", f"give it more memory: --bpf-vm-memory={_more(machine)}"
    return VmBootError(
        "kernel did not boot:",
        on=f"{kernel.name} ({kernel.release}) with QEMU {machine.version}",
        why=f"{why} (it said: {said})" if said else why,
        fix=f"{fix}; {where}" if fix else f"`bpfmaps doctor --vm` tells which ways to start it work; {where}",
        details=machine.last_words(),
    )


def _memory(machine: Machine) -> str:
    """Returns the size of a guest's memory as QEMU takes it, or an empty text."""
    return next((machine.command[at + 1] for at, word in enumerate(machine.command) if word == "-m"), "")


def _more(machine: Machine) -> str:
    """Returns a larger size: the double, and at least the default."""
    memory = _memory(machine)
    return f"{max(1, 2 * size(memory) >> 30) if memory else 1}G"


def _short_of_memory(machine: Machine) -> str:
    """Returns a sentence if the console says that memory was short, or the guest has little; else nothing."""
    memory = _memory(machine)
    found = _NO_MEMORY.search(machine.console.text())
    if found:
        return f"its memory, {memory}, is too small (the console: {found[0].strip()!r})"
    return f"it has {memory} of memory only" if memory and size(memory) < _SMALL else ""


def _keep(machine: Machine, kernel: Kernel) -> tuple[Path, Path]:
    """Keeps the command and the console of a failed boot in files. Each kernel has one of each."""
    folder, name = paths.cache_dir() / "boots", kernel.name.replace("/", "_")
    command, console = folder / f"{name}.sh", folder / f"{name}.console"
    write(command, f"#!/bin/sh\n# of a guest that did not come up\nexec {shlex.join(machine.command)}\n")
    write(console, machine.console.text()[-_MOST_KEPT:])
    return command, console
