"""Runs a QEMU process that can't outlive this one, with its console and the byte channels into its guest."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pytest_bpfmaps.errors import VmError, shown_lines
from pytest_bpfmaps.vm.guest.init import CANNOT_MOUNT, NO_CARD
from pytest_bpfmaps.vm.machine.architecture import Architecture, architecture
from pytest_bpfmaps.vm.machine.child_process import die_with
from pytest_bpfmaps.vm.machine.qmp import Monitor

PORTS = ("control", "stream", "alarm", "output", "terminal")
MONITOR = "monitor"
MONITOR_CHANNEL = f"bpfmaps-{MONITOR}"  # the character device for QEMU's monitor
END_SECONDS = 20.0  # how long a killed process may take to be gone
_SHUTDOWN = re.compile(r"reboot: |ACPI: PM: |---\[ end ")
_TELLING = re.compile(r"Kernel panic|^bpfmaps: this")
PYTHON_FELL = "Fatal Python error: "  # faulthandler prints it


def find_qemu(arch: str) -> str:
    """Returns the path of the QEMU binary for guests of `arch`. Raises VmError when there is none."""
    wanted = architecture(arch)
    path = shutil.which(wanted.qemu)
    if path is None:
        raise VmError(
            "cannot start a guest",
            why=f"{wanted.qemu} is not on the PATH",
            fix=f"install QEMU (Debian, Ubuntu: apt install {wanted.package})",
        )
    return path


@dataclass(frozen=True)
class MachineConfig:
    """The size of a guest, and whether it has KVM and a network; `memory` is as QEMU takes it, ``1G``."""

    cpus: int = 2
    memory: str = "1G"
    kvm: bool = False
    network: bool = False


@dataclass(frozen=True)
class Addition:
    """What a guest's QEMU gets beside its shape: `arguments`, and `descriptors` of this process they name.

    A saved state does not depend on it.
    """

    arguments: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()


NOTHING_MORE = Addition()


class Log:
    """Text that another process writes. It is kept in memory, so nobody has to remove a file."""

    def __init__(self, name: str) -> None:
        self.fd = os.memfd_create(name)
        self._kept = b""

    def size(self) -> int:
        """Returns the size of the text in bytes."""
        return os.fstat(self.fd).st_size if self.fd >= 0 else len(self._kept)

    def text(self, since: int = 0) -> str:
        """Returns the text so far, from byte `since` on."""
        data = self._kept[since:] if self.fd < 0 else os.pread(self.fd, max(self.size() - since, 0), since)
        return data.decode(errors="replace").replace("\r\n", "\n")

    def tail(self, lines: int = 30, since: int = 0) -> str:
        """Returns the last lines after byte `since`, or all lines since a panic or a fatal error."""
        # only a dead guest needs these
        from pytest_bpfmaps.kernel.splats import complaint_start, panic_start, readable

        full = self._lines(since)
        start = complaint_start(full)
        if start is None and since and (found := panic_start(everything := self._lines(0))) is not None:
            full, start = everything, found  # it panicked before this process noted the test's begin
        if start is None:
            start = next((at for at, line in enumerate(full) if line.startswith(PYTHON_FELL)), None)
        return shown_lines("\n".join(full[-lines:] if start is None else readable(full[start:])))

    def telling_line(self) -> str:
        """Returns the line of a panic or of this package; else the last one before the guest shut down."""
        lines = [line for line in self._lines(0) if not _SHUTDOWN.search(line)]
        return next((line for line in reversed(lines) if _TELLING.search(line)), lines[-1] if lines else "")

    def _lines(self, since: int) -> list[str]:
        return [line.rstrip() for line in self.text(since).splitlines() if line.strip()]

    def close(self) -> None:
        """Takes no more text. The text so far can still be read. Safe to call again."""
        if self.fd >= 0:
            self._kept = os.pread(self.fd, self.size(), 0)
            os.close(self.fd)
            self.fd = -1


def is_final(words: str) -> bool:
    """Returns whether a guest that ended with these last words would end in the same way, however it
    is started.
    """
    return any(sign in words for sign in (CANNOT_MOUNT, NO_CARD, "Failed to mount real root"))


def advice(words: str) -> str:
    """Returns what to do about a guest that ended with these last words."""
    if any(sign in words for sign in (CANNOT_MOUNT, "Failed to mount real root")):
        return "use a kernel with 9p and overlay, built in or as modules (Debian's -cloud kernels lack 9p)"
    if NO_CARD in words:
        return "use a kernel with virtio_net, built in or as a module, or leave out --bpf-vm-network"
    return "look at the console below"


class Machine:
    """A running guest: ``stream`` carries execnet's bytes, ``control`` and ``alarm`` JSON, ``output`` text.

    ``terminal`` carries what a person types into the guest and sees of it.

    Whatever starts a guest only makes the QEMU command, for `arch`; the rest is the same for all. QEMU
    inherits `descriptors` of this process. The command puts QEMU's monitor on `MONITOR_CHANNEL`; an answer
    may take `patience` seconds there. `version` is QEMU's, for messages. `started` is when QEMU was started,
    as `time.monotonic` counts.
    """

    def __init__(
        self,
        command: Sequence[str],
        arch: str,
        descriptors: Sequence[int] = (),
        *,
        version: str = "",
        patience: float = 20.0,
    ) -> None:
        self.version, self.patience = version, patience
        self.console, self.messages = Log("console"), Log("qemu")
        pairs = {port: socket.socketpair() for port in PORTS}
        self.control, self.stream, self.alarm, self.output, self.terminal = (pairs[p][0] for p in PORTS)
        theirs = {port: pairs[port][1] for port in PORTS}
        self._monitor: Monitor | None = None
        self._monitor_socket, theirs[MONITOR] = socket.socketpair()
        fds = {name: sock.fileno() for name, sock in theirs.items()}
        channels = _channel_arguments(architecture(arch), fds)
        self.command = [*command, *channels]
        parent = os.getpid()
        self.started = time.monotonic()
        try:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=self.console.fd,
                stderr=self.messages.fd,
                pass_fds=[*(s.fileno() for s in theirs.values()), *descriptors],
                process_group=0,  # pytest handles Ctrl-C, and ends its guests in order
                preexec_fn=lambda: die_with(parent),  # noqa: PLW1509 - the other thread holds no lock
            )
        finally:
            for sock in theirs.values():
                sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def monitor(self) -> Monitor:
        """Returns QEMU's monitor; this machine closes it. Raises VmError when QEMU does not answer."""
        if self._monitor is None:
            self._monitor = Monitor(self._monitor_socket, self.patience)
        return self._monitor

    def last_words(self, since: int = 0) -> str:
        """Returns the console's last lines after byte `since`, and what QEMU itself printed."""
        parts = (("console", self.console.tail(since=since)), ("QEMU", self.messages.tail(10)))
        silent = "silent during this test" if since else "empty"
        return "\n".join(f"--- {title}\n{text}" for title, text in parts if text) or f"--- console: {silent}"

    def end(self) -> None:
        """Ends the guest at once, because it has nothing to save. What it wrote can still be read."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # QEMU may be the child of a script
        with suppress(subprocess.TimeoutExpired):  # it hangs in the kernel, and ends later
            self.process.wait(END_SECONDS)

    def close(self) -> None:
        """Ends the guest, and closes everything that belongs to it. Safe to call again."""
        self.end()
        for port in (self.control, self.stream, self.alarm, self.output, self.terminal):
            port.close()
        for log in (self.console, self.messages):
            log.close()
        (self._monitor or self._monitor_socket).close()


def network_arguments(arch: Architecture, shape: MachineConfig) -> list[str]:
    """Returns the arguments for a card on QEMU's user-mode network; none unless `shape` has a network."""
    if not shape.network:
        return []
    return ["-netdev", "user,id=bpfmaps-net,ipv6=off", *arch.device("virtio-net", "netdev=bpfmaps-net")]


def _channel_arguments(arch: Architecture, fds: dict[str, int]) -> list[str]:
    arguments = arch.device("virtio-serial", "id=bpfmaps-ports")
    for name, fd in fds.items():
        arguments += ["-chardev", f"socket,id=bpfmaps-{name},fd={fd}"]
        if name in PORTS:
            device = f"virtserialport,bus=bpfmaps-ports.0,chardev=bpfmaps-{name},name=bpfmaps.{name}"
            arguments += ["-device", device]
    return arguments
