"""QEMU's monitor: stop, save, restore, plug in. A thin face of qemu.qmp."""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import Any, Self

from pytest_bpfmaps.errors import VmError

_PAUSE = 0.003


class Monitor:
    """Commands to one QEMU, over a socket that it was started with (``-mon mode=control``)."""

    def __init__(self, sock: socket.socket) -> None:
        from qemu.qmp.legacy import QEMUMonitorProtocol

        self._protocol: Any = QEMUMonitorProtocol(sock)
        self._protocol.connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, command: str, **arguments: Any) -> Any:
        """A command's answer. Raises VmError when QEMU refuses it, or is gone."""
        from qemu.qmp import QMPError

        try:
            return self._protocol.cmd(command, **arguments)
        except (QMPError, OSError) as e:
            raise VmError(f"QEMU refused {command!r}", why=str(e)) from e

    def save(self, uri: str) -> None:
        """Stops the machine and writes its state to `uri`, as ``migrate`` takes it. Raises VmError."""
        self.call("stop")
        self.call("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self.call("migrate", uri=uri)
        while True:
            answer = self.call("query-migrate")
            if answer.get("status") == "completed":
                return
            if answer.get("status") in ("failed", "cancelled"):
                raise VmError(
                    "cannot save the state of a guest", why=answer.get("error-desc", "QEMU gave up")
                )
            time.sleep(_PAUSE)

    def wait_for_state(self) -> None:
        """Waits until the state that QEMU was started with (``-incoming``) is there."""
        while self.call("query-status")["status"] == "inmigrate":
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Hangs up. Safe to call again."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.close()
