"""QEMU's monitor: saves and restores a machine.

The protocol is docs/interop/qmp-spec in QEMU's sources: JSON, one answer for each command, events between
them.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from pytest_bpfmaps.errors import VmError

_PAUSE = 0.002
# The memory is in a file of its own. Since version 4.0 QEMU can leave it out of the state that it writes.
_MEMORY_APART = {"capability": "x-ignore-shared", "state": True}


class Monitor:
    """Sends commands to one QEMU over a socket that it was started with (``-mon mode=control``).

    An answer may take `seconds`. Raises VmError when QEMU does not answer.
    """

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._socket = sock
        self._seconds = seconds
        sock.settimeout(seconds)
        self._lines = sock.makefile("r", encoding="utf-8")
        try:
            self._receive()  # its greeting
            self.call("qmp_capabilities")
            self.call("migrate-set-capabilities", capabilities=[_MEMORY_APART])
        except BaseException:
            self.close()
            raise

    def call(self, command: str, *descriptors: int, **arguments: Any) -> Any:
        """Returns a command's answer; `descriptors` go with it.

        Raises VmError when QEMU refuses it or has ended.
        """
        request = json.dumps({"execute": command, "arguments": arguments})
        end = time.monotonic() + self._seconds
        try:
            socket.send_fds(self._socket, [request.encode() + b"\n"], descriptors)
        except OSError as e:
            raise VmError("cannot control QEMU:", on=command, why=str(e)) from e
        while time.monotonic() < end:
            answer = self._receive()
            if "error" in answer:
                raise VmError("QEMU refused", on=command, why=answer["error"].get("desc", "no reason given"))
            if "return" in answer:
                return answer["return"]
        raise self._late()

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError as e:
            raise self._late() from e
        except OSError as e:
            raise VmError("cannot control QEMU", why=str(e)) from e
        if not line:
            raise VmError("cannot control QEMU", why="it ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _late(self) -> VmError:
        return VmError("cannot control QEMU", why=f"it did not answer within {self._seconds:.0f} s")

    def save(self, target: int, *, to_file: bool) -> None:
        """Stops the machine, and writes everything except its memory to the file `target`. Raises VmError.

        `to_file`: this QEMU takes ``file:``. Since 11.1 that is the only way to a file.
        """
        self.call("stop")
        self.call("migrate", uri=self._hand_over(target, to_file=to_file, flags=os.O_WRONLY))
        for answer in self._answers("query-migrate"):
            if answer.get("status") == "completed":
                return
            if answer.get("status") in ("failed", "cancelled"):
                why = answer.get("error-desc", "QEMU gave up")
                raise VmError("cannot save the state of a guest", why=why)

    def restore(self, source: int, *, from_file: bool) -> None:
        """Has a QEMU that was started with ``-incoming defer`` load the state in `source`, and go on.

        `from_file` is as `to_file` of `save`. Raises VmError.
        """
        self.call("migrate-incoming", uri=self._hand_over(source, to_file=from_file, flags=os.O_RDONLY))
        for answer in self._answers("query-status"):
            if answer["status"] != "inmigrate":
                break
        self.call("cont")

    def _answers(self, command: str) -> Iterator[Any]:
        """Sends the same command again and again.

        Raises VmError when the caller still asks after `seconds`.
        """
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            yield self.call(command)
            time.sleep(_PAUSE)
        raise VmError("QEMU does not finish", on=command, why=f"it went on for {self._seconds:.0f} s")

    def _hand_over(self, fd: int, *, to_file: bool, flags: int) -> str:
        """Gives QEMU the file `fd`, and returns its address for a migration."""
        if not to_file:
            self.call("getfd", fd, fdname="state")
            return "fd:state"
        again = os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)  # QEMU compares exactly these flags
        try:
            self.call("add-fd", again, **{"fdset-id": 1})
        finally:
            os.close(again)
        return "file:/dev/fdset/1"

    def close(self) -> None:
        """Closes the connection. Safe to call again."""
        self._lines.close()
        self._socket.close()
