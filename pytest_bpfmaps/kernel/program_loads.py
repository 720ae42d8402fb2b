"""Records which programs a process and its descendants load, whatever becomes of their descriptors.

A perf event that a process inherits is written to by its descendants, too, also by those that go into the
background. Each child opens the events for itself before it executes its program, and sends them here; they
write into ring buffers that this process has mapped before. So no program is missed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct

from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.kernel.cpus import online_cpus
from pytest_bpfmaps.kernel.program_records import (
    BPF_EVENT,
    BPF_RECORD,
    DISABLED,
    INHERIT,
    LOADED,
    LOST_RECORD,
    Ring,
    open_event,
)

# PERF_EVENT_IOC_SET_OUTPUT, _IO('$', 5); PowerPC has other bits for "no argument"
_SET_OUTPUT = 0x2405 | (1 << 29 if os.uname().machine.startswith("ppc") else 0)
_MOST_SENT = 253  # descriptors in one message, SCM_MAX_FD


class ProgramLoads:
    """The ids of programs that a child of this process and its descendants load (Linux 5.1).

    The child calls `follow`, then this process `receive`. Where the kernel refuses perf events, nothing is
    known: `ids` returns None. The child must not be of an ordinary user: the kernel ends the events when such
    a process executes a program with privileges of its own (setuid), and tells nobody.
    """

    def __init__(self) -> None:
        self._ids: set[int] = set()
        self._events: list[int] = []
        self._rings: dict[int, Ring] = {}
        self._is_known = False
        self._mine, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            for cpu in online_cpus():
                self._rings[cpu] = Ring(cpu, DISABLED)
        except (OSError, UnsupportedError):
            self._close_rings()

    def follow(self) -> None:
        """Has the kernel record what the calling process and its descendants load from now on."""
        made: list[int] = []
        with contextlib.suppress(OSError):  # then `ids` is None
            for cpu, ring in self._rings.items():
                made.append(open_event(cpu, INHERIT | BPF_EVENT, pid=0))
                fcntl.ioctl(made[-1], _SET_OUTPUT, ring.fd)
            for at in range(0, len(made), _MOST_SENT):
                socket.send_fds(self._theirs, [b"."], made[at : at + _MOST_SENT])

    def receive(self) -> None:
        """Takes the child's events. It has executed its program, or it has ended."""
        self._theirs.close()
        with contextlib.suppress(OSError):
            flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            while fds := socket.recv_fds(self._mine, 1, _MOST_SENT, flags)[1]:
                self._events += fds
        self._mine.close()
        self._is_known = len(self._events) == len(self._rings) > 0

    def ids(self) -> frozenset[int] | None:
        """Returns the ids of all programs so far; None if they are not all known."""
        for ring in self._rings.values():
            for kind, content in ring.records():
                if kind == LOST_RECORD:
                    self._is_known = False
                elif kind == BPF_RECORD:
                    what, _, number = struct.unpack_from("=HHI", content)
                    if what == LOADED:
                        self._ids.add(number)
        return frozenset(self._ids) if self._is_known else None

    def end(self) -> None:
        """Ends the recording, because the child and its descendants have ended.

        `ids` still has what they loaded. Safe to call again.
        """
        self.ids()
        self._close_events()
        self._close_rings()

    def _close_events(self) -> None:
        while self._events:
            os.close(self._events.pop())

    def _close_rings(self) -> None:
        while self._rings:
            self._rings.popitem()[1].close()

    def close(self) -> None:
        """Ends the recording, and forgets it. Safe to call again."""
        self._is_known = False
        self._mine.close()
        self._theirs.close()
        self._close_events()
        self._close_rings()
