"""What a guest and its gateway say to each other, as JSON lines over a virtio-serial port.

The guest sends ``hello`` (once), ``phase`` (what the worker begins, see `phases.WorkerStep`), ``fork`` (see
`Host.say_forked`), and ``call`` (a request that needs an answer). The host sends ``job`` (once), then one
answer for each call. The host takes nothing but plain JSON from the guest, and expects that the guest may
send something else. The guest trusts the host: it raises the host's exceptions as they were raised there.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpfmaps.cache.unchanged_files import UnchangedFiles
from pytest_bpfmaps.errors import VmLostError
from pytest_bpfmaps.vm.protocol.phases import WorkerStep

if TYPE_CHECKING:
    from pytest_bpfmaps.compiler.request import CompileRequest

FD_VARIABLE = "BPFMAPS_CONTROL_FD"  # set by guest/init.py
LONGEST = 1 << 24  # bytes of the longest line
GARBAGE = "garbage"  # the key for the text of a line that is no message
_SHOWN = 80  # characters of that text in a message


class Lines:
    """JSON lines over a descriptor. The caller closes the descriptor. Several threads may send.

    Empty lines do not count. Each message follows an empty line, so that another program's text without a
    line end does not spoil the message.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._rest = b""
        self._sending = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Sends one message. Raises OSError when the other side has ended."""
        data = memoryview(_line(message))
        with self._sending:
            while data:
                data = data[os.write(self.fd, data) :]

    def receive(self) -> dict[str, Any] | None:
        """Returns the next message, or None when the other side has ended.

        Other lines have the key `GARBAGE`.
        """
        while True:
            line, end, rest = self._rest.partition(b"\n")
            if end or len(line) > LONGEST:
                self._rest = rest
                if line.strip():
                    return _message(line)
                continue
            try:
                chunk = os.read(self.fd, 1 << 16)
            except OSError:
                return None
            if not chunk:
                return None
            self._rest += chunk

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (message := self.receive()) is not None:
            yield message


def _line(message: dict[str, Any]) -> bytes:
    return b"\n" + json.dumps(message).encode() + b"\n"


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if isinstance(message, dict) and GARBAGE not in message:  # that key is not for the other side
        return message
    text = repr(line[:_SHOWN])[1:]
    return {GARBAGE: f"{text} …" if len(line) > _SHOWN else text}


def dump_error(error: BaseException) -> str:
    """Returns an exception as text for the guest."""
    return base64.b64encode(pickle.dumps(error)).decode()


class Host:
    """The host, as a guest's worker talks to it."""

    def __init__(self, fd: int) -> None:
        self._lines = Lines(fd)
        self._calling = threading.Lock()

    @classmethod
    def connect(cls) -> Host | None:
        """Returns the host of this guest's worker; None in any other process."""
        text = os.environ.get(FD_VARIABLE)
        if text is None:
            return None
        try:
            mode = os.fstat(int(text)).st_mode
        except (OSError, ValueError):  # a child process inherits the variable, not the descriptor
            return None
        return cls(int(text)) if stat.S_ISCHR(mode) else None

    def tell(self, step: WorkerStep) -> None:
        """Says what the worker begins now, so that a hang is noticed and named."""
        self._lines.send(step.message())

    def say_forked(self, test: str) -> None:
        """Says, in a process that `test` forked, that this process came back out of the test.

        It takes no lock: the thread that held it was not forked, and would never release it.
        """
        os.write(self._lines.fd, _line({"fork": test}))

    def call(self, name: str, argument: str) -> str:
        """Has the host do something. Raises the host's error, or VmLostError when it does not answer."""
        with self._calling:
            self._lines.send({"call": name, "argument": argument})
            answer = self._lines.receive()
        if answer is None:
            raise VmLostError(f"cannot {name}", on="on the host", why="the connection to it is closed")
        if "error" in answer:
            error: BaseException = pickle.loads(base64.b64decode(answer["error"]))
            raise error
        result: str = answer["result"]
        return result


class RemoteCompiler:
    """A `Compiler` in a guest. Clang runs on the host, and the guest reads the object from the host's files.

    The host reads the source itself. The text of a source that was written in the guest is sent. Headers that
    were written in the guest are not found.
    """

    def __init__(self, host: Host, *, portable: bool = False) -> None:
        self._host = host
        self._portable = portable
        self._found: UnchangedFiles[bool] = UnchangedFiles()  # whether the host has a file, too

    def compile(self, request: CompileRequest) -> Path:
        """Returns the object file for `request`. Raises CompileError as the host's compiler does."""
        if request.source is not None:
            source = Path(request.source)
            if source.is_file() and not self._host_has(source):
                code, include = os.fsdecode(source.read_bytes()), (str(source.parent), *request.include)
                request = replace(request, source=None, code=code, name=source.name, include=include)
        path, warnings = json.loads(self._host.call("compile", request.to_json()))
        if warnings:
            from pytest_bpfmaps.compiler.implicit_headers import show_warnings

            show_warnings(warnings, portable=self._portable)
        return Path(path)

    def link(self, objects: Sequence[Path]) -> Path:
        """Returns one object, linked of several: by the host, unless one of them is only in the guest."""
        if all(map(self._host_has, objects)):
            return Path(self._host.call("link", json.dumps([str(path) for path in objects])))
        from pytest_bpfmaps.compiler.linker import link

        return link(
            objects, Path(tempfile.gettempdir(), "bpfmaps-objects")
        )  # the host's cache is read-only here

    def _host_has(self, source: Path) -> bool:
        """Returns whether the host has the same content at that path. An unchanged file is read once."""

        def ask() -> bool:
            digest = sha256(source.read_bytes()).hexdigest()
            return self._host.call("digest", str(source)) == digest

        return self._found.get(str(source), ask)
