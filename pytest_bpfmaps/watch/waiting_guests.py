"""Starts guests between runs, so that the next run finds them ready."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_bpfmaps.matrix.prepared_guests import Prepared
from pytest_bpfmaps.vm.machine.child_process import is_stopped


@dataclass
class _Guest:
    start: tuple[str, ...]
    address: str
    process: subprocess.Popen[bytes]


class WaitingGuests:
    """The guests that wait. Each serves one run, so no test sees what another run has left."""

    def __init__(self) -> None:
        self._guests: list[_Guest] = []
        self._wanted: list[tuple[str, ...]] = []

    def offer(self) -> Prepared:
        """Returns the guests for the next run."""
        waiting: dict[tuple[str, ...], list[tuple[str, int]]] = {}
        for guest in filter(_can_serve, self._guests):
            waiting.setdefault(guest.start, []).append((guest.address, guest.process.pid))
        return Prepared(waiting)

    def prepare(self, begun: Sequence[Sequence[str]], taken: Sequence[str], *, all_ran: bool) -> None:
        """Starts guests like those that a run has `begun`. `taken` are the addresses of those that it used.

        After a run of only some tests, guests for other kernels go on waiting.
        """
        used = list(map(tuple, begun))
        self._wanted = used if all_ran else self._wanted + [each for each in used if each not in self._wanted]
        kept: list[_Guest] = []
        left = list(self._wanted)
        for guest in self._guests:
            if guest.start in left and guest.address not in taken and _can_serve(guest):
                left.remove(guest.start)
                kept.append(guest)
            else:
                _end(guest)
        self._guests = kept + list(map(_begin, left))

    def close(self) -> None:
        """Ends all guests. Safe to call again."""
        for guest in self._guests:
            _end(guest)
        self._guests = []


def _begin(start: tuple[str, ...]) -> _Guest:
    address = f"bpfmaps-{os.getpid()}-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind("\0" + address)
        listener.listen()
        fd = listener.fileno()
        command = [sys.executable, "-m", "pytest_bpfmaps.vm.gateway.prepared", str(os.getpid())]
        command += [str(fd), *start]
        process = subprocess.Popen(
            command,
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # a run says what fails
        )
    return _Guest(start, address, process)


def _can_serve(guest: _Guest) -> bool:
    return guest.process.poll() is None and not is_stopped(guest.process.pid)


def _end(guest: _Guest) -> None:
    guest.process.kill()
    guest.process.wait()
