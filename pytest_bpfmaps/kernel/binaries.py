"""Programs and shared libraries that uprobes go into: where they are, and where in them a function is."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from fnmatch import translate
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection


def find_binary(name: str | os.PathLike[str]) -> Path | None:
    """The file for a path, or for a name without slash.

    A name is looked for among the libraries that this process has mapped (``libc``, ``libc.so.6``), then in
    $PATH. ``libpython`` is where Python's own functions are: its library, or else the interpreter itself.
    """
    text = os.fspath(name)
    if "/" in text:
        found = Path(text)
        return found.resolve() if found.exists() and not text.startswith("/proc/") else _if_there(found)
    mapped = mapped_files()
    for path in mapped:
        if path.name == text or re.match(re.escape(text) + r"[-.0-9]", path.name):
            return path
    if text == "libpython":
        return Path(sys.executable).resolve()
    program = shutil.which(text)
    return Path(program).resolve() if program else None


def mapped_files() -> list[Path]:
    """The files that this process has mapped to run: its program and its libraries."""
    with open("/proc/self/maps") as file:
        paths = (line.split(maxsplit=5)[5].rstrip() for line in file if " r-xp " in line and "/" in line)
        return [Path(p) for p in dict.fromkeys(paths)]


def function_offsets(binary: Path, pattern: str) -> dict[str, int]:
    """File offset of each function whose name fits a pattern with ``*`` and ``?``, sorted by name.

    Raises `ValueError` for a file that is no ELF file.
    """
    fits = re.compile(translate(pattern)).match
    with _open(binary) as elf:
        found = {s.name: s["st_value"] for s in _functions(elf) if fits(s.name)}
        segments = [s for s in elf.iter_segments("PT_LOAD") if s["p_flags"] & 1]
    return {name: _to_offset(at, segments) for name, at in sorted(found.items())}


def function_names(binary: Path) -> set[str]:
    """Names of the functions that a binary has symbols for; none for a file that is no ELF file."""
    try:
        with _open(binary) as elf:
            return {s.name for s in _functions(elf)}
    except (ValueError, OSError):
        return set()


def usdt_names(binary: Path) -> set[str]:
    """``provider:name`` of each user statically defined tracepoint of a binary."""
    try:
        with _open(binary) as elf:
            section = elf.get_section_by_name(".note.stapsdt")
            notes = list(section.iter_notes()) if section else []
    except (ValueError, OSError):
        return set()
    found = set()
    for note in notes:
        raw = note["n_desc"]
        data = raw if isinstance(raw, bytes) else str(raw).encode("latin-1")
        parts = data[3 * 8 :].split(b"\0")  # after the addresses of place, base and semaphore
        found.add(f"{parts[0].decode()}:{parts[1].decode()}")
    return found


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None


class _open:
    """An ELF file for a while; raises `ValueError` when it is none."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self._elf = ELFFile(self._file)
        except ELFError as e:
            self._file.close()
            raise ValueError(f"{path} is no ELF file") from e

    def __enter__(self) -> Any:
        return self._elf

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def _functions(elf: Any) -> Iterator[Any]:
    for section in elf.iter_sections():
        if isinstance(section, SymbolTableSection):
            yield from (
                s
                for s in section.iter_symbols()
                if s["st_info"]["type"] in ("STT_FUNC", "STT_LOOS") and s["st_value"]
            )


def _to_offset(address: int, segments: list[Any]) -> int:
    for s in segments:
        if s["p_vaddr"] <= address < s["p_vaddr"] + s["p_memsz"]:
            return int(address - s["p_vaddr"] + s["p_offset"])
    return int(address)
