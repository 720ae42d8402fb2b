"""Finds programs and shared libraries for uprobes, and the names in them that can be probed."""

from __future__ import annotations

import os
import re
import shutil
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from pytest_bpfmaps.elf.functions_by_name import elf_functions
from pytest_bpfmaps.elf.process_mappings import DELETED, mappings_of
from pytest_bpfmaps.elf.reader import ElfError, open_elf

_LINK = re.compile(r"/proc/(self|thread-self|\d+)/exe$")
_AT_PHDR = 3


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A part of a file in a process's memory: its addresses, and its offset in the file."""

    start: int
    end: int
    offset: int
    path: Path  # the path by which this process can open it
    name: Path  # the path in the process that maps it
    runs: bool  # whether it is code


def find_binary(name: str | os.PathLike[str], pid: int | None = None) -> Path | None:
    """Returns the file for a path, or for a name without a slash; None if there is none.

    A name is looked for among the libraries that the process `pid` (default: this one) has mapped (``libc``,
    ``libc.so.6``), then in $PATH. ``libpython`` is the file with Python's own functions: its library, or else
    the interpreter. ``/proc/PID/exe`` is the file that the process runs its code from. That differs from the
    target of the link if the process has mapped its code again from another file.
    """
    text = os.fspath(name)
    if link := _LINK.match(text):
        return _program_of(text, link[1])
    if "/" in text:
        found = Path(text)
        return (found if text.startswith("/proc/") else found.resolve()) if found.exists() else None
    for process in dict.fromkeys((pid, None)):
        for file in _code_of(process):
            if file.name.name == text or re.match(re.escape(text) + r"[-.0-9]", file.name.name):
                return file.path
    if text == "libpython":
        return Path(sys.executable).resolve()
    program = shutil.which(text)
    return Path(program).resolve() if program else None


def mapped_files(pid: int | None = None) -> list[Path]:
    """Returns the files whose code a process (default: this one) has mapped: its program and libraries."""
    return list(dict.fromkeys(m.path for m in _code_of(pid)))


def mappings(pid: int | None = None) -> list[MappedFile]:
    """Returns the parts of files that a process has mapped, by address.

    Raises `OSError` for a process that this user may not inspect.
    """
    who = "self" if pid is None else str(pid)
    found = []
    for m in mappings_of(who):
        if m.is_file:
            place = _openable(who, m.path, f"/proc/{who}/map_files/{m.start:x}-{m.end:x}")
            name = Path(m.path.removesuffix(DELETED))
            found.append(MappedFile(m.start, m.end, m.offset, place, name, m.runs))
    return found


def _code_of(pid: int | None) -> list[MappedFile]:
    try:
        return [m for m in mappings(pid) if m.runs]
    except OSError:
        return []


def _openable(who: str, path: str, link: str) -> Path:
    """Returns a path that opens the file, even if it is deleted or in another mount namespace."""
    if path.endswith(DELETED) and os.path.lexists(link):
        return Path(link)
    if who != "self":
        inside = f"/proc/{who}/root{path}"
        try:
            if not os.path.samefile(inside, path):
                return Path(inside)
        except OSError:
            return Path(inside if os.path.exists(inside) else path)
    return Path(path)


def _program_of(link: str, process: str) -> Path | None:
    """Returns the file with the code of a process's program.

    If the file was deleted, it is found by the program headers in memory: the code is mapped from the same
    file.
    """
    if not os.path.exists(link):
        return None
    if not os.readlink(link).endswith(DELETED):
        return Path(link)
    auxiliary = Path(f"/proc/{process}/auxv").read_bytes()
    headers = dict(struct.iter_unpack("=QQ", auxiliary[: len(auxiliary) // 16 * 16])).get(_AT_PHDR, 0)
    mapped = mappings(int(process) if process.isdecimal() else None)
    name = next((m.name for m in mapped if m.start <= headers < m.end), None)
    return next((m.path for m in mapped if m.runs and m.name == name), Path(link))


def usdt_names(binary: Path) -> set[str]:
    """Returns ``provider:name`` of each user statically defined tracepoint. Raises `ElfError`."""
    found = set()
    with open_elf(binary) as elf:
        section = elf.get_section_by_name(".note.stapsdt")
        for note in section.iter_notes() if section else ():
            raw = note["n_desc"]
            data = raw if isinstance(raw, bytes) else str(raw).encode("latin-1")
            texts = data[3 * elf.elfclass // 8 :]  # after three addresses: place, base, semaphore
            provider, name = texts.split(b"\0")[:2]
            found.add(f"{provider.decode()}:{name.decode()}")
    return found


def function_names(binary: Path) -> set[str]:
    """Returns the names of the functions that have symbols; empty for a damaged or other file."""
    try:
        return elf_functions(binary).names()
    except (ElfError, OSError):
        return set()
