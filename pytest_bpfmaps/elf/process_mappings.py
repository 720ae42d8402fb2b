"""Reads what a process has mapped into its memory: ``/proc/PID/maps``.

Source: proc_pid_maps(5), proc_pid_smaps(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DELETED = " (deleted)"
_LINE = re.compile(r"^(\w+)-(\w+) (\S+) (\w+) \S+ (\d+) *(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A part of a process's memory, from the address `start` up to `end`.

    `rights` is a text such as ``"r-xp"``. `offset` is the offset in the file, in bytes. `path` is the file's
    path in the process; it ends in `DELETED` if the file has no name any more. Memory without a file has an
    empty path, or one such as ``[heap]``.
    """

    start: int
    end: int
    rights: str
    offset: int
    inode: int
    path: str

    @property
    def runs(self) -> bool:
        """Whether it is code."""
        return "x" in self.rights

    @property
    def is_file(self) -> bool:
        """Whether it is a part of a file."""
        return self.path.startswith("/")


def mappings_of(process: int | str = "self") -> list[Mapping]:
    """Returns what a process has mapped, by address; empty for a zombie. Raises `OSError`."""
    return list(parse_mappings(Path(f"/proc/{process}/maps").read_text(errors="surrogateescape")))


def parse_mappings(text: str) -> Iterator[Mapping]:
    """Yields the mappings in the text of ``/proc/PID/maps`` or ``/proc/PID/smaps``."""
    for start, end, rights, offset, inode, path in _LINE.findall(text):
        yield Mapping(int(start, 16), int(end, 16), rights, int(offset, 16), int(inode), path)
