"""Opening ELF files of which nothing is known: whatever is wrong with one is an `ElfError` that says it."""

from __future__ import annotations

import io
import lzma
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

_DEBUG = Path("/usr/lib/debug/.build-id")
_T = TypeVar("_T")


class ElfError(ValueError):
    """The file is no ELF file, or it is damaged; the text says which file, and what is wrong."""


@contextmanager
def open_elf(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An `elftools.elf.elffile.ELFFile` for a while.

    Raises `ElfError` for a file that is no whole ELF file, also when that shows only while it is read, and
    `OSError` when the file can't be opened.
    """
    with open(path, "rb") as file, read_elf(file, os.fspath(path)) as elf:
        yield elf


@contextmanager
def read_elf(file: BinaryIO, name: str) -> Iterator[Any]:
    """As `open_elf`, for what is open already; `name` is what messages call it."""
    from elftools.elf.elffile import ELFFile

    head = file.read(4)
    if head != b"\x7fELF":
        raise ElfError(f"{name} is empty" if not head else f"{name} is no ELF file")
    try:
        elf = ELFFile(file)
        _check_whole(elf, file, name)
        yield elf
    except (ElfError, OSError):
        raise
    except Exception as e:  # its parser meets damage with nearly every builtin exception
        raise ElfError(f"{name} is damaged: {type(e).__name__}: {e}") from e


def from_debug_files(build_id: str, packed: bytes, read: Callable[[Any], _T]) -> list[_T]:
    """What `read` gives for each file with symbols for debuggers that can be read.

    They are in a debug package's file, found by the build id, and in the section ``.gnu_debugdata`` that
    Fedora has: `packed`.
    """
    found = []
    separate = _DEBUG / build_id[:2] / f"{build_id[2:]}.debug"
    with suppress(ElfError, OSError):
        if build_id and separate.is_file():
            with open_elf(separate) as elf:
                found.append(read(elf))
    with suppress(ElfError, lzma.LZMAError):
        if packed:
            with read_elf(io.BytesIO(lzma.decompress(packed)), ".gnu_debugdata") as elf:
                found.append(read(elf))
    return found


def _check_whole(elf: Any, file: BinaryIO, name: str) -> None:
    """The tables of sections and segments, and what they describe, are inside of the file."""
    size = file.seek(0, os.SEEK_END)
    ends = [
        elf["e_shoff"] + elf.num_sections() * elf["e_shentsize"] if elf["e_shoff"] else 0,
        elf["e_phoff"] + elf.num_segments() * elf["e_phentsize"] if elf["e_phoff"] else 0,
    ]
    if max(ends) <= size:
        ends += [s["p_offset"] + s["p_filesz"] for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
    if max(ends) > size:
        raise ElfError(f"{name} is cut off: it has {size} bytes, of {max(ends)} that its headers speak of")
