"""Connects to a gateway on another machine, for ``--tx ssh=MACHINE//bpfmaps=KERNELS``.

    python -m pytest_bpfmaps.vm.gateway.ssh JOURNAL COMMAND

runs ssh; COMMAND is one word for a shell. It answers execnet at once, as the gateway does, so that nobody
waits for the connection. It reads the entries of the journal out of ssh's stderr.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import IO

from pytest_bpfmaps.errors import shown_lines
from pytest_bpfmaps.vm.gateway import journal
from pytest_bpfmaps.vm.gateway.execnet_bootstrap import Bootstrap, pump, write_all
from pytest_bpfmaps.vm.machine.child_process import die_with_parent


@dataclass(frozen=True)
class RemoteMachine:
    """Where the kernels that fit the glob `kernels` are started; `python` and `folder` are paths there."""

    kernels: str
    ssh: tuple[str, ...]
    python: tuple[str, ...]
    folder: str

    def has(self, kernel: str) -> bool:
        """Returns whether guests with that kernel are to be started there."""
        return fnmatchcase(kernel, self.kernels)

    def command(self, arguments: Sequence[str], journal_here: str) -> list[str]:
        """Returns the command that runs a gateway there with these arguments."""
        there = [
            *self.python,
            "-m",
            "pytest_bpfmaps.vm.gateway",
            *arguments,
            "--journal",
            journal.STDERR,
            "--judge",
        ]
        shell = f"cd {shlex.quote(self.folder)} && exec {shlex.join(there)}"
        return [sys.executable, "-m", __name__, journal_here, shlex.join([*self.ssh, shell])]


def machine(spec: str) -> RemoteMachine | None:
    """Returns the machine of an execnet specification; None when it is a worker for the host's tests."""
    import execnet

    parsed = execnet.XSpec(spec)
    if not parsed.bpfmaps or not parsed.ssh:
        return None
    config = ["-F", parsed.ssh_config] if parsed.ssh_config else []
    return RemoteMachine(
        kernels=str(parsed.bpfmaps),
        ssh=("ssh", "-C", *config, *parsed.ssh.split()),
        python=tuple(shlex.split(parsed.python or sys.executable)),
        folder=parsed.chdir or os.getcwd(),
    )


def main(arguments: Sequence[str]) -> int:
    """Passes bytes on until one of the two ends is closed. Returns ssh's exit status."""
    path, command = arguments[0], shlex.split(arguments[1])  # more arguments are for an interpreter
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # pytest handles Ctrl-C, and closes our stdin
    die_with_parent()
    bootstrap = Bootstrap.take()
    ssh = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
    )
    assert ssh.stdin is not None
    assert ssh.stdout is not None
    assert ssh.stderr is not None
    said: deque[str] = deque(maxlen=10)
    listener = threading.Thread(target=_listen, args=(ssh.stderr, path, said), daemon=True)
    listener.start()
    threading.Thread(target=_pass_on, args=(bootstrap.line + bootstrap.rest, ssh.stdin), daemon=True).start()
    greeted = os.read(ssh.stdout.fileno(), 1)
    if greeted:
        pump(ssh.stdout.fileno(), 1)
    status = ssh.wait()
    listener.join()
    if not greeted:
        why = f"ssh ended with status {status}: {' '.join(said) or 'it printed nothing'}"
        text = f"VmError: cannot start a guest with {shlex.join(command)}: {why}"
        journal.write(path, journal.JournalEntry(bootstrap.worker, "failed", text=text))
    return status


def _pass_on(first: bytes, to: IO[bytes]) -> None:
    try:
        write_all(to.fileno(), first)  # a buffer would complain at the end about what it could not write
        pump(0, to.fileno())
        to.close()
    except OSError:
        return  # ssh has ended; the main thread sees it


def _listen(stderr: IO[bytes], path: str, said: deque[str]) -> None:
    for raw in stderr:
        line = raw.decode(errors="replace").rstrip()
        if not journal.take(path, line):
            line = shown_lines(line)
            said.append(line)
            print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # a thread may read from a pipe that nobody will close
