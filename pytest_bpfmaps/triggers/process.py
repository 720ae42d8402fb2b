"""Starts processes whose id is known before they run, so that a program can filter by it from the start."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import NoReturn, Self

from pytest_bpfmaps.errors import ClosedError, TriggerError
from pytest_bpfmaps.kernel.release import shown_timeout, timeout_scale
from pytest_bpfmaps.libbpf import ffi, lib

_PR_SET_PDEATHSIG = 1  # prctl(2)
_FAILED = struct.Struct("=i")

Argument = str | bytes | PathLike[str]


class PausedProcess:
    """A process that exists and does nothing until `resume` makes it execute its program.

    `pid` is known at once. Nothing happens in the process before `resume`, so the first event that a tracer
    sees is the program's own execve. `input` is what the program reads from its standard input. The process
    is killed when this process dies, and `close` reaps it in any case. Raises `TriggerError` when there is no
    such program.
    """

    def __init__(
        self,
        args: Sequence[Argument],
        *,
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | PathLike[str] | None = None,
    ) -> None:
        self.args = [os.fsencode(a) for a in args]
        self.returncode: int | None = None
        program = shutil.which(os.fsdecode(self.args[0]))
        if program is None:
            raise TriggerError(
                "cannot start", on=os.fsdecode(self.args[0]), why="there is no such program", errno=2
            )
        lib.prctl  # noqa: B018 - opens libc now; that is not safe after the fork
        self._output = os.memfd_create("output", os.MFD_CLOEXEC)
        self._door, inside = socket.socketpair()
        stdin = os.memfd_create("input", os.MFD_CLOEXEC)
        try:
            os.write(stdin, input)
            os.lseek(stdin, 0, os.SEEK_SET)
            command = program, self.args, dict(os.environ if env is None else env)
            self.pid = _fork()
            if self.pid == 0:
                self._door.close()
                _wait_and_execute(inside.fileno(), stdin, self._output, command, cwd)
        finally:
            inside.close()
            os.close(stdin)
        self.pidfd = os.pidfd_open(self.pid)

    def resume(self) -> None:
        """Lets it execute its program, and returns when it does. Raises `TriggerError` when execve fails."""
        if self._door.fileno() < 0:
            raise ClosedError("cannot resume", on=str(self), why="it was resumed already, or is closed")
        with self._door as door:
            with contextlib.suppress(OSError):  # the process has ended already
                door.sendall(b"!")
            refused = door.recv(_FAILED.size)  # empty when execve has closed the other end
        if refused:
            number = _FAILED.unpack(refused)[0]
            self.wait()
            raise TriggerError("cannot start", on=str(self), why=os.strerror(number), errno=number)

    def send_signal(self, number: int) -> None:
        """Sends a signal. Does nothing when the process has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def wait(self, timeout: float = 10.0) -> int:
        """Waits until the process ends. Returns its exit status, or minus the signal that killed it.

        `timeout` is in seconds; it is longer where the CPU is emulated. Raises `TriggerError` when it is
        over.
        """
        if self.returncode is None:
            ended = select.poll()
            ended.register(self.pidfd, select.POLLIN)
            if not ended.poll(timeout * timeout_scale() * 1000):
                raise TriggerError(
                    "waited for", on=str(self), why=f"it has not ended within {shown_timeout(timeout)}"
                )
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def run(self, timeout: float = 10.0) -> int:
        """Resumes the process, and waits until it ends; see `resume` and `wait`."""
        self.resume()
        return self.wait(timeout)

    @property
    def output(self) -> bytes:
        """What the process has written to its standard output so far."""
        return os.pread(self._output, os.fstat(self._output).st_size, 0)

    def close(self) -> None:
        """Kills the process if it still exists, and reaps it. Safe to call again."""
        if self._output < 0:
            return
        self.send_signal(signal.SIGKILL)
        self.wait()
        self._door.close()
        os.close(self.pidfd)
        os.close(self._output)
        self._output = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "paused" if self._door.fileno() >= 0 else f"returncode={self.returncode}"
        return f"<{self}, {state}>"

    def __str__(self) -> str:
        return f"process {self.pid} ({os.fsdecode(self.args[0])})"


class ProcessFactory:
    """The fixture `bpf_process`: each call makes a `PausedProcess`, and `close` ends them all."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __call__(
        self,
        args: Sequence[Argument],
        *,
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | PathLike[str] | None = None,
    ) -> PausedProcess:
        """Makes a process that waits for `PausedProcess.resume`."""
        made = PausedProcess(args, input=input, env=env, cwd=cwd)
        self._stack.push(made)
        return made

    def close(self) -> None:
        """Kills and reaps all processes that it made. Safe to call again."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _fork() -> int:
    with warnings.catch_warnings():
        # The child takes no lock that another thread may hold: it only waits, and executes.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _wait_and_execute(
    door: int,
    stdin: int,
    stdout: int,
    command: tuple[str, list[bytes], dict[str, str]],
    cwd: str | PathLike[str] | None,
) -> NoReturn:
    try:
        lib.prctl(_PR_SET_PDEATHSIG, ffi.cast("unsigned long", signal.SIGKILL))
        # Python ignores these; programs want their defaults
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        if cwd is not None:
            os.chdir(cwd)
        if os.read(door, 1):  # empty when the test ended without `resume`
            os.execve(*command)
    except OSError as e:
        os.write(door, _FAILED.pack(e.errno or 0))
    finally:
        os._exit(127)
