"""A file in which gateways tell pytest what happened to their guests.

A file in memory, reached through ``/proc``: it is gone with the pytest process, however that ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

STDERR = "stderr"  # a path that stands for lines of stderr, for a gateway on another machine
ENDINGS = ("failed", "lost", "hung")
_MARK = "bpfmaps-journal "


@dataclass(frozen=True)
class JournalEntry:
    """Something that happened to the guest of the worker `worker`.

    `event`: ``another-way`` (it was started another way than usual, and `text` is a line that says why),
    ``ready`` (it booted), ``doing`` (`text` is what it does from now on, where that is no test), ``fault``
    (`test` did what `text` says, and the guest goes on), ``failed`` (it never booted), ``lost`` (it died),
    ``hung`` (something took too long). `text` says why, `console` holds its last lines, `stacks` where the
    tasks of a hung one stood, `seconds` how long the start took, `test` the last test that it began,
    `in_test` whether it was in that test, `time` when this happened, in seconds since the epoch.
    """

    worker: str
    event: str
    release: str = ""
    text: str = ""
    console: str = ""
    stacks: str = ""
    seconds: float = 0.0
    test: str = ""
    in_test: bool = False
    time: float = field(default_factory=time.time)


class Journal:
    """The reader's side; `path` is what gateways open."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("bpfmaps-journal")
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"

    def entries(self, worker: str) -> list[JournalEntry]:
        """What happened to the guest of `worker`, oldest first."""
        text = os.pread(self._fd, os.fstat(self._fd).st_size, 0).decode()
        return [
            e for e in (JournalEntry(**json.loads(line)) for line in text.splitlines()) if e.worker == worker
        ]

    def end(self, worker: str) -> JournalEntry | None:
        """Why the guest of `worker` ended; None when nothing was said about it."""
        return next((e for e in reversed(self.entries(worker)) if e.event in ENDINGS), None)

    def close(self) -> None:
        """Forget it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def write(path: str | None, entry: JournalEntry) -> None:
    """Append `entry`; without a reader (`path` is None, or it is gone) nothing happens."""
    text = json.dumps(asdict(entry))
    if path == STDERR:
        print(_MARK + text, file=sys.stderr, flush=True)
    elif path is not None and Path(path).exists():
        with open(path, "ab", buffering=0) as file:
            file.write(text.encode() + b"\n")


def take(path: str, line: str) -> bool:
    """Append the entry that `line` of another gateway's stderr is; False when it is none."""
    if not line.startswith(_MARK):
        return False
    write(path, JournalEntry(**json.loads(line.removeprefix(_MARK))))
    return True
