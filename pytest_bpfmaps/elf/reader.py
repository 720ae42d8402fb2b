"""Opens ELF files that may be damaged: every fault of a file is an `ElfError`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from pytest_bpfmaps.compat.elftools_names import leave_hash_tables, limit_sections

_LONGEST_PATH = 4096


class ElfError(ValueError):
    """The file is not an ELF file, or it is damaged; the text names the file and the fault."""


@contextmanager
def open_elf(path: str | os.PathLike[str], *, only_debug: bool = False, name: str = "") -> Iterator[Any]:
    """Opens an `elftools.elf.elffile.ELFFile`, and closes it at the end.

    With `only_debug`, the file may lack the content of its segments, as debug files do. `name` is its name in
    messages, by default its path.

    Raises `ElfError` for an incomplete or other file, even if the fault only shows while the file is read,
    and `OSError` if the file can't be opened.
    """
    with open(path, "rb") as file, read_elf(file, name or os.fspath(path), only_debug=only_debug) as elf:
        yield elf


@contextmanager
def read_elf(file: BinaryIO, name: str, *, only_debug: bool = False) -> Iterator[Any]:
    """Reads a file that is open already, as `open_elf` does; `name` is its name in messages."""
    from elftools.elf.elffile import ELFFile

    head = file.read(4)
    if head != b"\x7fELF":
        raise ElfError(f"{name} is empty" if not head else f"{name} is no ELF file")
    try:
        elf = ELFFile(file)
        leave_hash_tables(elf)
        limit_sections(elf)
        _check_whole(elf, file, name, only_debug)
        yield elf
    except ElfError:
        raise
    except Exception as e:  # for a damaged file its parser raises nearly every builtin exception
        if isinstance(e, OSError) and e.errno != errno.EINVAL:  # EINVAL comes from an impossible offset
            raise
        raise ElfError(f"{name} is damaged: {type(e).__name__}: {e}") from e


def _check_whole(elf: Any, file: BinaryIO, name: str, only_debug: bool) -> None:
    """Raises `ElfError` if the tables of sections and segments, or their contents, exceed the file."""
    size = file.seek(0, os.SEEK_END)
    ends = [
        elf["e_shoff"] + elf.num_sections() * elf["e_shentsize"] if elf["e_shoff"] else 0,
        elf["e_phoff"] + elf.num_segments() * elf["e_phentsize"] if elf["e_phoff"] else 0,
    ]
    if max(ends) <= size and not only_debug:
        ends += [s["p_offset"] + s["p_filesz"] for s in loaded_segments(elf)]
    if max(ends) > size:
        raise ElfError(f"{name} is cut off: it has {size} bytes, but its headers describe {max(ends)}")


def loaded_segments(elf: Any) -> list[Any]:
    """Returns the headers of the parts of the file that are loaded.

    `ELFFile.iter_segments` would also read the content of other segments, such as large hash tables.
    """
    return [header for header in _segments(elf) if header["p_type"] == "PT_LOAD"]


def _segments(elf: Any) -> list[Any]:
    from elftools.common.utils import struct_parse

    places = (elf["e_phoff"] + number * elf["e_phentsize"] for number in range(elf.num_segments()))
    return [struct_parse(elf.structs.Elf_Phdr, elf.stream, place) for place in places]


def notes(elf: Any) -> Iterator[tuple[str, int]]:
    """Yields owner and type of every note that is in a section."""
    from elftools.elf.sections import NoteSection

    for section in elf.iter_sections():
        if isinstance(section, NoteSection):
            for note in section.iter_notes():
                kind = note["n_type"]  # it is a name if pyelftools knows the number for this owner
                yield str(note["n_name"]).rstrip("\0"), kind if isinstance(kind, int) else -1


def loaded_size(elf: Any) -> int:
    """Returns the offset in bytes at which the loaded part of the file ends; debug symbols follow."""
    size = elf.stream.seek(0, os.SEEK_END)
    ends = (header["p_offset"] + header["p_filesz"] for header in _segments(elf))
    return int(min(max(ends, default=size), size))


def loader(elf: Any) -> str:
    """Returns the path of the dynamic loader; empty for a statically linked program."""
    for header in _segments(elf):
        if header["p_type"] == "PT_INTERP":
            elf.stream.seek(header["p_offset"])
            return str(
                elf.stream.read(min(header["p_filesz"], _LONGEST_PATH))
                .split(b"\0", 1)[0]
                .decode(errors="replace")
            )
    return ""
