"""Starts and reads the process that watches files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from pytest_bpfmaps.errors import BpfError

_LIMIT = "raise the limit of folders that this user may watch: sysctl fs.inotify.max_user_watches=524288"
_OTHER = "look at the message above, and start pytest again"


class Changes:
    """The changes of files in `folders` and below them. `fd` is readable when there may be some.

    A context manager. Raises BpfError when the folders can't be watched.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self.folders = sorted(folders)
        command = [sys.executable, "-m", "pytest_bpfmaps.watch.notifier", str(os.getpid()), *self.folders]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0, env=dict(os.environ)
        )
        assert self._process.stdout is not None
        self.fd = self._process.stdout.fileno()
        self._rest = b""
        self.has_begun = False

    def begin(self) -> None:
        """Waits until the folders are watched. Raises BpfError."""
        while not self.has_begun:
            self.read()

    def read(self) -> list[str]:
        """Waits for the next lines. Returns the paths that changed, each once. Raises BpfError."""
        chunk = os.read(self.fd, 1 << 16)
        if not chunk:
            raise self._error(f"the process that watches ended with status {self._process.wait()}")
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        messages: list[dict[str, Any]] = [json.loads(line) for line in lines]
        for message in messages:
            self.has_begun = self.has_begun or "watching" in message
            if "error" in message:
                raise self._error(message["error"])
        return list(dict.fromkeys(path for message in messages for path in message.get("changed", ())))

    def _error(self, why: str) -> BpfError:
        fix = _LIMIT if "limit" in why.lower() or "os error 28" in why else _OTHER
        return BpfError("cannot watch", on=", ".join(self.folders), why=why, fix=fix)

    def leave(self) -> None:
        """Closes this process's copies of descriptors, in a fork. The watching goes on."""
        os.close(self.fd)

    def close(self) -> None:
        """Ends the process. Safe to call again."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
