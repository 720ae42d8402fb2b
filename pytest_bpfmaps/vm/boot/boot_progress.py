"""Notices a guest that makes no progress while it boots, and keeps what a person needs to look into it."""

from __future__ import annotations

import os
import select
import shlex
import time
from pathlib import Path
from typing import Any

from pytest_bpfmaps import paths
from pytest_bpfmaps.cache.stored_files import write
from pytest_bpfmaps.errors import VmBootError, VmError
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.child_process import stopped_process, waited_for_processor
from pytest_bpfmaps.vm.machine.qemu import Machine, advice, is_final
from pytest_bpfmaps.vm.protocol.rpc import Lines

STALL_SECONDS = 20.0
"""How long a guest may be silent, at the least. The longest silence of a healthy boot without KVM is 2 s."""
_LOOK_SECONDS = 0.25  # how often a boot is looked at
MORE_TIME = "--bpf-vm-timeout gives it more time"
GAPS = 10
"""How many times as long as the longest silence so far, in this boot, a silence may take."""


class BootProgress:
    """Watches one machine until it is ready. A line on its console is progress, and so is a word from it.

    How long a silence may be is measured, see `limit`. Time in which QEMU waited for a processor, because the
    host is busy, does not count: field 2 of ``/proc/PID/schedstat`` (the kernel's ``sched-stats.rst``).
    """

    def __init__(self, machine: Machine, kernel: Kernel) -> None:
        self._machine = machine
        self._kernel = kernel
        self._seen = machine.console.size()
        self._longest = 0.0
        self._last = self._now()

    @property
    def limit(self) -> float:
        """Seconds of silence that are taken for a stall.

        At least `STALL_SECONDS`; longer where this QEMU was slow to start, as it is within another emulated
        machine, and where this very boot has been silent for longer before.
        """
        return max(STALL_SECONDS, self._machine.patience, GAPS * self._longest)

    def note(self) -> None:
        """Counts a word from the guest as progress."""
        now = self._now()
        self._longest = max(self._longest, now - self._last)
        self._last = now

    def check(self) -> None:
        """Raises VmBootError when there was no progress for `limit` seconds."""
        size = self._machine.console.size()
        if size != self._seen:
            self._seen = size
            self.note()
        elif self._now() - self._last > self.limit:
            why = f"it made no progress for {self.limit:.0f} s: no new line on its console, no word from it"
            raise if_stopped(self._machine, boot_error(self._machine, self._kernel, why))

    def _now(self) -> float:
        return time.monotonic() - waited_for_processor(self._machine.process.pid)


def wait_for_word(
    machine: Machine, kernel: Kernel, control: Lines, word: str, timeout: float, *, fix: str = MORE_TIME
) -> Any:
    """What comes with `word` from a guest that boots; all else that it sends is left out.

    Raises VmBootError when the guest ends or makes no progress, VmError when the word comes more than
    `timeout` seconds after the machine was started, for which `fix` is the remedy.
    """
    progress, deadline = BootProgress(machine, kernel), machine.started + timeout
    ended = os.pidfd_open(machine.process.pid)
    try:
        while True:
            ready = select.select([control.fd, ended], [], [], _LOOK_SECONDS)[0]
            if time.monotonic() > deadline:
                raise final(boot_error(machine, kernel, f"the guest was not ready after {timeout:g} s", fix))
            if control.fd in ready and (message := control.receive()) is not None and word in message:
                return message[word]
            if ended in ready:
                raise _ended(machine, kernel)
            progress.check()
    finally:
        os.close(ended)


def _ended(machine: Machine, kernel: Kernel) -> VmError:
    status, words = machine.process.wait(), machine.last_words()
    error = boot_error(
        machine, kernel, f"QEMU ended with status {status} before the guest was ready", advice(words)
    )
    return final(error) if is_final(words) else error


def if_stopped(machine: Machine, error: VmBootError) -> VmError:
    """The same error; where QEMU was stopped, another, for no other way and no other state would help."""
    stopped = stopped_process(machine.process.pid)
    if stopped is None:
        return error
    why = f"{error.why}; QEMU, process {stopped}, is stopped by a signal or a debugger"
    return VmError(error.what, on=error.on, why=why, fix="find out what stops it", details=error.details)


def final(error: VmBootError) -> VmError:
    """The same error, for which no other way to start the guest is tried."""
    return VmError(error.what, on=error.on, why=error.why, fix=error.fix, details=error.details)


def boot_error(machine: Machine, kernel: Kernel, why: str, fix: str | None = None) -> VmBootError:
    """The error for a guest that did not come up, with its last words. Keeps QEMU's command in a file."""
    kept = _keep_command(machine, kernel)
    said = machine.messages.tail(1)
    where = f"QEMU's command line is in {kept}"
    return VmBootError(
        "kernel did not boot:",
        on=f"{kernel.name} ({kernel.release}) with QEMU {machine.version}",
        why=f"{why} (it said: {said})" if said else why,
        fix=f"{fix}; {where}" if fix else f"`bpfmaps doctor --vm` tells which ways to start it work; {where}",
        details=machine.last_words(),
    )


def _keep_command(machine: Machine, kernel: Kernel) -> Path:
    """The last failed boot of each kernel is kept."""
    path = paths.cache_dir() / "boots" / f"{kernel.name.replace('/', '_')}.sh"
    write(path, f"#!/bin/sh\n# of a guest that did not come up\nexec {shlex.join(machine.command)}\n")
    return path
