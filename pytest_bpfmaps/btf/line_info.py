"""Finds the C line of each instruction: reads the line information of a ``.BTF.ext`` section.

https://docs.kernel.org/bpf/btf.html#btf-ext-section
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pytest_bpfmaps.btf.types import Btf
from pytest_bpfmaps.elf.editor import Elf

_HEADER = struct.Struct("=HBBIIIII")


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A C line that an instruction comes from. `offset` is the instruction's, in bytes in its section."""

    section: str
    offset: int
    file: str
    text: str
    line: int


def source_lines(path: Path) -> list[SourceLine]:
    """Returns all line records of an object. An object without debug information has none."""
    try:
        state = path.stat()
        return _read(path, (state.st_mtime_ns, state.st_size, state.st_ino))
    except Exception:  # a damaged object: reading it checks little, so any error is possible
        return []


@lru_cache(maxsize=2)  # the explanations of one object's programs read them again and again
def _read(path: Path, _state: tuple[int, ...]) -> list[SourceLine]:
    elf = Elf(path.read_bytes())
    btf, ext = (elf.section(name) for name in (".BTF", ".BTF.ext"))
    return _parse(Btf(elf.content(btf)), elf.content(ext)) if btf and ext else []


def _parse(btf: Btf, raw: bytes) -> list[SourceLine]:
    _magic, _version, _flags, header, _, _, line_offset, length = _HEADER.unpack_from(raw)
    at = header + line_offset
    end = at + length
    (record_size,) = struct.unpack_from("=I", raw, at)
    at += 4
    found = []
    while at + 8 <= end:
        section, count = struct.unpack_from("=II", raw, at)
        at += 8
        for _ in range(count):
            offset, file, text, line_column = struct.unpack_from("=IIII", raw, at)
            at += record_size
            strings = btf.string(section), offset, btf.string(file), btf.string(text).strip()
            found.append(SourceLine(*strings, line_column >> 10))
    return found
