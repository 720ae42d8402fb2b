"""Watches which BPF programs are loaded in a guest, by any process. It is a process beside the worker.

The kernel tells each load and unload in the ring buffers of perf events, by ``PERF_RECORD_BPF_EVENT`` (Linux
5.1, commit 6ee52e2a3fe4), before the loader has its descriptor. This process has a real-time priority, and
reads at once what belongs to the program. It holds no descriptor of a program, so a test sees no difference.
Source: perf_event_open(2).
"""

from __future__ import annotations

import base64
import contextlib
import json
import mmap
import os
import select
import signal
import socket
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from pytest_bpfmaps.kernel.program_code import btf_bytes, program_code, program_ids
from pytest_bpfmaps.libbpf import ffi
from pytest_bpfmaps.libbpf.syscalls import perf_event_open

PRIORITY = 50
PAGES = 16  # pages of each ring buffer after the first one; a power of two
_SOFTWARE, _DUMMY = 1, 9  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY
_WATERMARK, _KSYMBOL, _BPF_EVENT = 1 << 14, 1 << 29, 1 << 30  # bits of struct perf_event_attr
_LOST_RECORD, _KSYMBOL_RECORD, _BPF_RECORD = 2, 17, 18
_LOADED, _ENDED = 1, 2  # PERF_BPF_EVENT_PROG_LOAD, _UNLOAD
_HEAD, _TAIL = 0x400, 0x408  # offsets in struct perf_event_mmap_page


class Ring:
    """The records of one CPU. Raises OSError when the kernel has none."""

    def __init__(self, cpu: int) -> None:
        attributes = {"type": _SOFTWARE, "config": _DUMMY, "_flags": _WATERMARK | _KSYMBOL | _BPF_EVENT}
        attributes |= {"size": ffi.sizeof("struct perf_event_attr"), "wakeup_events": 1}
        self.fd = perf_event_open(ffi.new("struct perf_event_attr *", attributes), -1, cpu)
        self._page = mmap.PAGESIZE
        self._map = mmap.mmap(self.fd, self._page * (1 + PAGES))

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Gives type and content of each record since the last time."""
        head = struct.unpack_from("=Q", self._map, _HEAD)[0]
        tail = struct.unpack_from("=Q", self._map, _TAIL)[0]
        while tail < head:
            kind, _, size = struct.unpack("=IHH", self._read(tail, 8))
            yield kind, self._read(tail + 8, size - 8)
            tail += size
        struct.pack_into("=Q", self._map, _TAIL, tail)

    def _read(self, at: int, size: int) -> bytes:
        start = at % (self._page * PAGES)
        data = self._map[self._page + start : self._page + min(start + size, self._page * PAGES)]
        return data + self._map[self._page : self._page + size - len(data)]


class Watch:
    """Collects what belongs to each program, until it is asked for."""

    def __init__(self, cpus: list[int]) -> None:
        self.rings = [Ring(cpu) for cpu in cpus]
        self._known_types: set[int] = set()
        self._forget()
        for number in program_ids():
            self._add(number)

    def _forget(self) -> None:
        self._programs: list[dict[str, Any]] = []
        self._types: dict[int, bytes] = {}
        self._ended: list[int] = []
        self._missed: dict[int, str] = {}
        self._lost = False

    def look(self) -> None:
        """Reads what the kernel has told."""
        for ring in self.rings:
            symbol = ""
            for kind, content in ring.records():
                if kind == _KSYMBOL_RECORD:
                    symbol = content[16:].partition(b"\0")[0].decode(errors="replace")
                elif kind == _LOST_RECORD:
                    self._lost = True
                elif kind == _BPF_RECORD:
                    what, _, number = struct.unpack_from("=HHI", content)
                    if what == _LOADED:
                        self._add(number, symbol)
                    elif what == _ENDED:
                        self._ended.append(number)

    def _add(self, number: int, symbol: str = "") -> None:
        try:
            program = program_code(number)
            types = program["btf_id"]
            if types and types not in self._known_types:
                self._types[types] = btf_bytes(types)
                self._known_types.add(types)
            self._programs.append(program)
        except OSError:
            self._missed[number] = symbol

    def tell(self) -> bytes:
        """Returns a line of JSON with everything that came since the last line."""
        self.look()
        told = {
            "programs": self._programs,
            "types": self._types,
            "ended": self._ended,
            "missed": self._missed,
            "lost": self._lost,
        }
        self._forget()
        return json.dumps(told, default=_text).encode() + b"\n"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class ProgramWatcher:
    """The worker's side of that process. `close` ends the process, and so does the end of the worker.

    Raises OSError where the kernel does not tell of programs.
    """

    def __init__(self, cpus: list[int]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            _fork_orphan(lambda: _serve(theirs, cpus))
        self._lines = self._socket.makefile("rb")
        words = self._lines.readline()
        if words != b"ready\n":
            self.close()
            raise OSError(words.decode(errors="replace").strip() or "the process that watches programs ended")

    def ask(self) -> str:
        """Returns what came since the last time; see `Watch.tell`.

        Raises OSError when the process has ended.
        """
        self._socket.sendall(b"?")
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise OSError("the process that watches programs ended")
        return line.decode()

    def close(self) -> None:
        """Ends the process. Safe to call again."""
        self._lines.close()
        self._socket.close()


def _fork_orphan(work: Callable[[], None]) -> None:
    """Does `work` in a process that is no child of this one, so a test that waits for children sees none."""
    with warnings.catch_warnings():
        # It warns of threads; the child takes none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if not os.fork():
            work()
    finally:
        os._exit(0)


def _serve(sock: socket.socket, cpus: list[int]) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd != sock.fileno():
            with contextlib.suppress(OSError):
                os.close(fd)
    try:
        watch = Watch(cpus)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError as error:
        sock.sendall(f"{error.strerror}\n".encode())
        return
    sock.sendall(b"ready\n")
    poll = select.poll()
    for fd in (sock.fileno(), *(ring.fd for ring in watch.rings)):
        poll.register(fd, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd != sock.fileno():
                watch.look()
            elif sock.recv(1):
                sock.sendall(watch.tell())
            else:
                return
