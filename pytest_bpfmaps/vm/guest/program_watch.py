"""Watches which BPF programs are loaded in a guest, by any process.

The kernel tells each load and unload in the ring buffers of perf events, by ``PERF_RECORD_BPF_EVENT`` (Linux
5.1, commit 6ee52e2a3fe4), before the loader has its descriptor. Each CPU has a process here, beside the
worker. Its priority is real-time, so it reads what belongs to the program before the loader, which runs on
the same CPU, goes on. It holds no descriptor of a program, so a test sees no difference. Source:
perf_event_open(2), sched(7).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import socket
import struct
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from pytest_bpfmaps.kernel.program_code import btf_bytes, program_code, program_ids
from pytest_bpfmaps.kernel.program_records import (
    BPF_EVENT,
    BPF_RECORD,
    ENDED,
    KSYMBOL,
    KSYMBOL_RECORD,
    LOADED,
    LOST_RECORD,
    SAMPLE_ID,
    TID,
    WATERMARK,
    Ring,
)

PRIORITY = 50
_FLAGS = WATERMARK | SAMPLE_ID | KSYMBOL | BPF_EVENT


class Watch:
    """Collects what belongs to each program, until it is asked for."""

    def __init__(self, cpu: int, *, is_first: bool) -> None:
        self.ring = Ring(cpu, _FLAGS, TID)
        self._known_types: set[int] = set()
        self._forget()
        for number in program_ids() if is_first else ():
            self._add(number)

    def _forget(self) -> None:
        self._programs: list[dict[str, Any]] = []
        self._types: dict[int, bytes] = {}
        self._ended: list[int] = []
        self._missed: list[tuple[str, str]] = []
        self._lost = False

    def look(self) -> None:
        """Reads what the kernel has told."""
        symbol = ""
        for kind, content in self.ring.records():
            if kind == KSYMBOL_RECORD:
                symbol = content[16:].partition(b"\0")[0].decode(errors="replace")
            elif kind == LOST_RECORD:
                self._lost = True
            elif kind == BPF_RECORD:
                what, _, number = struct.unpack_from("=HHI", content)
                if what == LOADED:
                    self._add(number, symbol, struct.unpack_from("=I", content, len(content) - 8)[0])
                elif what == ENDED:
                    self._ended.append(number)

    def _add(self, number: int, symbol: str = "", pid: int = 0) -> None:
        comm = _comm(pid)
        try:
            program = program_code(number)
            if not program["name"] and not program["line_info"]:
                return  # it only asks what the kernel can do
            types = program["btf_id"]
            if types and types not in self._known_types:
                self._types[types] = btf_bytes(types)
                self._known_types.add(types)
            self._programs.append({**program, "pid": pid, "comm": comm})
        except OSError:
            # bpf_prog_TAG_NAME; those without a name, and libbpf's, only ask
            name = symbol.split("_", 3)[3] if symbol.count("_") > 2 else ""
            if name and not name.startswith(("libbpf_", "bpfmaps_")):
                self._missed.append((name, comm))

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


def _comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return file.read().strip()
    except OSError:  # it has ended, or it is not known
        return ""


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


_NOTHING: dict[str, Any] = {"programs": [], "types": {}, "ended": [], "missed": [], "lost": False}


class ProgramWatcher:
    """The worker's side of these processes. `close` ends them, and so does the end of the worker.

    Raises OSError where the kernel does not tell of programs.
    """

    def __init__(self, cpus: list[int]) -> None:
        self._sockets: list[socket.socket] = []
        try:
            for cpu in cpus:
                self._start(cpu)
        except BaseException:
            self.close()
            raise

    def _start(self, cpu: int) -> None:
        mine, theirs = socket.socketpair()
        is_first = not self._sockets
        self._sockets.append(mine)
        with theirs:
            _fork_orphan(lambda: _serve(theirs, cpu, is_first=is_first))
        words = _line(mine)
        if words != "ready":
            raise OSError(words)

    def ask(self) -> str:
        """Returns what came since the last time; see `Watch.tell`.

        Raises OSError when a process has ended.
        """
        for each in self._sockets:
            each.sendall(b"?")
        told = [line for each in self._sockets if (line := _line(each)) != _EMPTY]
        return told[0] if len(told) == 1 else json.dumps(_merged(map(json.loads, told)))

    def close(self) -> None:
        """Ends the processes. Safe to call again."""
        while self._sockets:
            self._sockets.pop().close()


_EMPTY = json.dumps(_NOTHING)


def _line(sock: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\n"):
        chunk = sock.recv(1 << 20)
        if not chunk:
            raise OSError("a process that watches programs has ended")
        data += chunk
    return data.decode().rstrip("\n")


def _merged(all_told: Iterable[dict[str, Any]]) -> dict[str, Any]:
    total = dict(_NOTHING)
    for told in all_told:
        total["types"] = {**total["types"], **told["types"]}
        total["lost"] = total["lost"] or told["lost"]
        for name in ("programs", "ended", "missed"):
            total[name] = [*total[name], *told[name]]
    return total


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


def _serve(sock: socket.socket, cpu: int, *, is_first: bool) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd != sock.fileno():
            with contextlib.suppress(OSError):
                os.close(fd)
    try:
        os.sched_setaffinity(0, {cpu})
        watch = Watch(cpu, is_first=is_first)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError as error:
        sock.sendall(f"{error.strerror}\n".encode())
        return
    sock.sendall(b"ready\n")
    poll = select.poll()
    for fd in (sock.fileno(), watch.ring.fd):
        poll.register(fd, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd != sock.fileno():
                watch.look()
            elif sock.recv(1):
                sock.sendall(watch.tell())
            else:
                return
