"""Runs a command in a guest of its own, and connects it with the standard streams of this process.

The other side is `vm/guest/command.py`.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import FrameType

from pytest_bpfmaps.errors import VmLostError
from pytest_bpfmaps.vm.boot.backends import AUTO
from pytest_bpfmaps.vm.boot.start import DAMAGED, Booted, boot
from pytest_bpfmaps.vm.gateway.guest_exit import why_it_ended
from pytest_bpfmaps.vm.gateway.job import job
from pytest_bpfmaps.vm.gateway.own_terminal import handled, raw_mode, terminal_size
from pytest_bpfmaps.vm.kernels.catalogue import check_content
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.kvm import judge
from pytest_bpfmaps.vm.machine.qemu import END_SECONDS, Machine, MachineConfig
from pytest_bpfmaps.vm.protocol.terminal import END, ENOUGH, LARGEST, STDERR, STDIN, STDOUT, Frames, frame

FOR_THE_COMMAND = (signal.SIGINT, signal.SIGQUIT)
END_OF_ALL = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit `status`, or the `errno` with which it could not be started."""

    status: int = 0
    errno: int | None = None


@dataclass(frozen=True)
class Wanted:
    """A command, whether it has a terminal, and variables of its environment that differ from the host's."""

    argv: Sequence[str]
    terminal: bool = False
    hostname: str | None = None
    environment: Mapping[str, str] | None = None


def run_command(
    kernel: Kernel,
    wanted: Wanted,
    *,
    way: str = AUTO,
    cpus: int = 2,
    memory: str = "1G",
    network: bool = False,
    timeout: float = 60.0,
    preparing: Callable[[], None] = lambda: None,
    ready: Callable[[str, str | None], None] = lambda release, note: None,
) -> Ended:
    """Runs a command in a new guest with `kernel`, which ends with it. Returns how the command ended.

    `preparing` is called before a state is made, `ready` before the command starts: with the kernel's
    release, and with a line that says why the guest did not start as usual, or None if it did. Raises
    VmError when the guest does not start, and VmLostError when it ends before the command.
    """
    with ExitStack() as used:
        used.enter_context(kernel.in_use())
        check_content(kernel, "boot/config")
        shape = MachineConfig(cpus, memory, judge(kernel).kvm, network)
        booted = boot(kernel, way, shape, timeout, preparing=lambda attempt: preparing())
        machine = used.enter_context(booted.machine)
        ready(booted.release, booted.note(kernel))
        order: dict[str, object] = {"argv": [*wanted.argv]}
        if wanted.terminal:
            order["size"] = terminal_size(0)
        facts = job(kernel, timeout)
        facts["env"] |= wanted.environment or {}
        facts["hostname"] = wanted.hostname or facts["hostname"]
        booted.control.send({**facts, "command": order})
        connection = Connection(booted, terminal=wanted.terminal)
        used.enter_context(connection)
        if wanted.terminal:
            used.enter_context(raw_mode(0))
        ended = connection.serve()
        if ended is None:
            raise _lost(machine, kernel, booted)
        return ended


def _lost(machine: Machine, kernel: Kernel, booted: Booted) -> VmLostError:
    with suppress(OSError):
        select.select([os.pidfd_open(machine.process.pid)], [], [], END_SECONDS)
    status = machine.process.poll()
    words = machine.last_words()
    why, _ = why_it_ended(machine.console.text(), words, 0 if status is None else status)
    fix = "look at the console above; the guest, and what was written in it, are gone"
    if booted.attempt.drop_if_damaged(kernel):
        why, fix = f"{why}; {DAMAGED}", "run the command again, from a new state"
    on = f"kernel {kernel.name} ({booted.release})"
    return VmLostError("guest ended:", on=on, why=why, fix=fix, details=words)


class Connection:
    """Passes bytes between this process's standard streams and a command, and signals to the command."""

    def __init__(self, booted: Booted, *, terminal: bool) -> None:
        self._port, self._control = booted.machine.terminal, booted.control
        self._terminal = terminal
        self._frames, self._to_guest = Frames(), b""
        self._input: int | None = 0
        self._signals: list[int] = []
        self._kept = ExitStack()
        self._asked = False

    def __enter__(self) -> Connection:
        self._port.setblocking(False)
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._kept.callback(os.close, self._woken)
        self._kept.callback(os.close, wake)
        self._kept.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(wake, warn_on_full_buffer=False))
        self._kept.enter_context(handled(self._end, *END_OF_ALL))
        if self._terminal:
            self._kept.enter_context(handled(self._note, signal.SIGWINCH))
        else:
            self._kept.enter_context(handled(self._pass_signal, *FOR_THE_COMMAND))
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def _note(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)

    def _pass_signal(self, number: int, frame: FrameType | None) -> None:
        """Passes the first Ctrl-C to the command. The second one ends the guest."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._note(number, frame)

    def _end(self, number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def serve(self) -> Ended | None:
        """Passes bytes on until the command has ended. Returns how, or None when the guest has ended."""
        while True:
            poll = select.poll()
            poll.register(self._port, select.POLLIN | (select.POLLOUT if self._to_guest else 0))
            poll.register(self._woken, select.POLLIN)
            if self._input is not None and len(self._to_guest) < ENOUGH:
                poll.register(self._input, select.POLLIN)
            ready = dict(poll.poll())
            if ready.get(self._woken):
                self._tell_signals()
            if self._input is not None and ready.get(self._input):
                self._read_input(self._input)
            if self._to_guest:
                self._send()
            if ready.get(self._port.fileno(), 0) & ~select.POLLOUT:
                try:
                    data = self._port.recv(LARGEST)
                except BlockingIOError:
                    continue
                except OSError:
                    return None
                if not data:
                    return None
                if (ended := self._show(data)) is not None:
                    return ended

    def _tell_signals(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._woken, 512)
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGWINCH:
                self._control.send({"size": terminal_size(0)})
            else:
                self._control.send({"signal": number})

    def _read_input(self, fd: int) -> None:
        try:
            data = os.read(fd, LARGEST)
        except BlockingIOError:  # another process made it non-blocking
            return
        except OSError:  # the terminal was closed
            data = b""
        self._to_guest += frame(STDIN, data)
        if not data:
            self._input = None
            if self._terminal:
                self._end(signal.SIGHUP, None)

    def _send(self) -> None:
        try:
            self._to_guest = self._to_guest[self._port.send(self._to_guest) :]
        except BlockingIOError:
            return
        except OSError:  # the guest has ended, and reading tells so
            self._to_guest, self._input = b"", None

    def _show(self, data: bytes) -> Ended | None:
        try:
            for kind, text in self._frames.feed(data):
                if kind == END:
                    how = json.loads(text)
                    return Ended(int(how.get("status", 0)), how.get("errno"))
                if kind in (STDOUT, STDERR):
                    _write_all(1 if kind == STDOUT else 2, text)
        except (ValueError, TypeError, AttributeError) as error:
            what, fix = "cannot understand", "leave /dev/vport* alone: they belong to this program"
            raise VmLostError(
                what, on="what the guest sent on its terminal's port", why=str(error), fix=fix
            ) from None
        return None


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # another process made it non-blocking
            select.select([], [fd], [], 1.0)
