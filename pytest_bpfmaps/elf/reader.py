"""Opens ELF files that may be damaged: whatever is wrong with one is an `ElfError`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from pytest_bpfmaps.compat.elftools_names import leave_hash_tables


class ElfError(ValueError):
    """The file is no ELF file, or it is damaged; the text says which file, and what is wrong."""


@contextmanager
def open_elf(path: str | os.PathLike[str], *, only_debug: bool = False, name: str = "") -> Iterator[Any]:
    """An `elftools.elf.elffile.ELFFile` for a while.

    A file with `only_debug` symbols may leave out what its segments speak of. Messages call it `name`, by
    default its path.

    Raises `ElfError` for a file that is no whole ELF file, also when that shows only while it is read, and
    `OSError` when the file can't be opened.
    """
    with open(path, "rb") as file, read_elf(file, name or os.fspath(path), only_debug=only_debug) as elf:
        yield elf


@contextmanager
def read_elf(file: BinaryIO, name: str, *, only_debug: bool = False) -> Iterator[Any]:
    """As `open_elf`, for what is open already; `name` is what messages call it."""
    from elftools.elf.elffile import ELFFile

    head = file.read(4)
    if head != b"\x7fELF":
        raise ElfError(f"{name} is empty" if not head else f"{name} is no ELF file")
    try:
        elf = ELFFile(file)
        leave_hash_tables(elf)
        _check_whole(elf, file, name, only_debug)
        yield elf
    except ElfError:
        raise
    except Exception as e:  # its parser meets damage with nearly every builtin exception
        if isinstance(e, OSError) and e.errno != errno.EINVAL:  # that is of a place where no file can be read
            raise
        raise ElfError(f"{name} is damaged: {type(e).__name__}: {e}") from e


def _check_whole(elf: Any, file: BinaryIO, name: str, only_debug: bool) -> None:
    """The tables of sections and segments, and what they describe, are inside of the file."""
    size = file.seek(0, os.SEEK_END)
    ends = [
        elf["e_shoff"] + elf.num_sections() * elf["e_shentsize"] if elf["e_shoff"] else 0,
        elf["e_phoff"] + elf.num_segments() * elf["e_phentsize"] if elf["e_phoff"] else 0,
    ]
    if max(ends) <= size and not only_debug:
        ends += [s["p_offset"] + s["p_filesz"] for s in loaded_segments(elf)]
    if max(ends) > size:
        raise ElfError(f"{name} is cut off: it has {size} bytes, of {max(ends)} that its headers speak of")


def loaded_segments(elf: Any) -> list[Any]:
    """The headers of the parts of the file that are loaded.

    `ELFFile.iter_segments` reads what the others speak of too: tables of hashes, which take it long.
    """
    return [header for header in _segments(elf) if header["p_type"] == "PT_LOAD"]


def _segments(elf: Any) -> list[Any]:
    from elftools.common.utils import struct_parse

    places = (elf["e_phoff"] + number * elf["e_phentsize"] for number in range(elf.num_segments()))
    return [struct_parse(elf.structs.Elf_Phdr, elf.stream, place) for place in places]


def notes(elf: Any) -> Iterator[tuple[str, int]]:
    """Owner and type of every note that is in a section."""
    from elftools.elf.sections import NoteSection

    for section in elf.iter_sections():
        if isinstance(section, NoteSection):
            for note in section.iter_notes():
                kind = note["n_type"]  # a name where pyelftools knows the number for this owner
                yield str(note["n_name"]).rstrip("\0"), kind if isinstance(kind, int) else -1


def loaded_size(elf: Any) -> int:
    """Where in the file what is loaded to run it ends, in bytes; symbols for debuggers follow."""
    size = elf.stream.seek(0, os.SEEK_END)
    ends = (header["p_offset"] + header["p_filesz"] for header in _segments(elf))
    return int(min(max(ends, default=size), size))


def loader(elf: Any) -> str:
    """The program that is run to load this one; empty for one that is linked statically."""
    for header in _segments(elf):
        if header["p_type"] == "PT_INTERP":
            elf.stream.seek(header["p_offset"])
            return str(elf.stream.read(header["p_filesz"]).split(b"\0", 1)[0].decode(errors="replace"))
    return ""
