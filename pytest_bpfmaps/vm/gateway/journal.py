"""The journal: a file in which gateways tell pytest what happened to their guests.

It is a file in memory, which gateways open through ``/proc``. It is gone with the pytest process, however
that ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

STDERR = "stderr"  # this path means lines of stderr, for a gateway on another machine
ENDINGS = ("failed", "lost", "hung")
_MARK = "bpfmaps-journal "


@dataclass(frozen=True)
class JournalEntry:
    """Something that happened to the guest of the worker `worker`.

    `event` is one of these:

    - ``another-way``: the guest was started in another way than usual; `text` is a line that says why.
    - ``ready``: it has booted.
    - ``doing``: `text` is what it does from now on, if that is not a test.
    - ``fault``: `test` did what `text` says, and the guest goes on.
    - ``failed``: it never booted.
    - ``lost``: it died.
    - ``hung``: something took too long.

    For the last three, `text` says why, and `console` has the console's last lines. `stacks` tells where the
    tasks of a hung guest stood. `seconds` is how long the start took, `test` the last test that it began,
    `in_test` whether it was in that test, and `time` when this happened, in seconds since the epoch.
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
    """The journal as pytest has it; `path` is what gateways open."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("bpfmaps-journal")
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"

    def entries(self, worker: str) -> list[JournalEntry]:
        """Returns what happened to the guest of `worker`, oldest first."""
        text = os.pread(self._fd, os.fstat(self._fd).st_size, 0).decode()
        return [
            e for e in (JournalEntry(**json.loads(line)) for line in text.splitlines()) if e.worker == worker
        ]

    def end(self, worker: str) -> JournalEntry | None:
        """Returns why the guest of `worker` ended; None when nobody said."""
        return next((e for e in reversed(self.entries(worker)) if e.event in ENDINGS), None)

    def note_fault(self, worker: str, test: str, text: str) -> None:
        """Appends a fault that pytest itself has found in what the guest of `worker` sent."""
        write(self.path, JournalEntry(worker, "fault", text=text, test=test))

    def close(self) -> None:
        """Closes the file. Safe to call again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def write(path: str | None, entry: JournalEntry) -> None:
    """Appends `entry`. Does nothing when there is no reader (`path` is None, or its process has ended)."""
    text = json.dumps(asdict(entry))
    if path == STDERR:
        print(_MARK + text, file=sys.stderr, flush=True)
    elif path is not None and Path(path).exists():
        with open(path, "ab", buffering=0) as file:
            file.write(text.encode() + b"\n")


def take(path: str, line: str) -> bool:
    """Appends the entry in `line` of another gateway's stderr. Returns False when the line is none."""
    if not line.startswith(_MARK):
        return False
    write(path, JournalEntry(**json.loads(line.removeprefix(_MARK))))
    return True
