"""Finds symbols of a program or library that are in a separate file."""

from __future__ import annotations

import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pytest_bpfmaps.elf.reader import ElfError, open_elf, read_elf

_DEBUG = Path("/usr/lib/debug")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DebugFiles:
    """Where an ELF file says that its other symbols are.

    `build_id` is in hexadecimal, `link` is the content of ``.gnu_debuglink``, `packed` is the content of
    ``.gnu_debugdata`` (Fedora has it), and `folder` is the file's folder. Each is empty if there is none.
    Source: "Debugging Information in Separate Files" and "MiniDebugInfo" in the manual of gdb.
    """

    build_id: str
    link: bytes
    packed: bytes
    folder: str

    @classmethod
    def of(cls, elf: Any, path: str | os.PathLike[str]) -> Self:
        """Returns the debug files of `elf`, which is the file at `path`."""
        link, packed = (_content(elf, name) for name in (".gnu_debuglink", ".gnu_debugdata"))
        return cls(build_id(elf), link, packed, os.path.dirname(os.path.realpath(path)))

    def read(self, read: Callable[[Any], _T]) -> list[_T]:
        """Calls `read` for each debug file that exists and can be read, and returns the results."""
        found = []
        with suppress(ElfError, OSError):
            for path in self._separate():
                with open_elf(path, only_debug=True) as elf:
                    found.append(read(elf))
        with suppress(ElfError, lzma.LZMAError):
            if self.packed:
                unpacked = io.BytesIO(lzma.decompress(self.packed))
                with read_elf(unpacked, ".gnu_debugdata", only_debug=True) as elf:
                    found.append(read(elf))
        return found

    def _separate(self) -> Iterator[Path]:
        """Yields the separate file: found by build id, else by the name and the checksum of the link."""
        by_id = _DEBUG / ".build-id" / self.build_id[:2] / f"{self.build_id[2:]}.debug"
        if self.build_id and by_id.is_file():
            yield by_id
            return
        raw_name, _, rest = self.link.partition(b"\0")
        name = os.fsdecode(raw_name)
        if not name or "/" in name or len(rest) < 4:
            return
        checksum = int.from_bytes(rest[-4:], sys.byteorder)
        folder = Path(self.folder)
        for path in (folder / name, folder / ".debug" / name, Path(f"{_DEBUG}{folder}") / name):
            if path.is_file() and zlib.crc32(path.read_bytes()) == checksum:
                yield path
                return


def build_id(elf: Any) -> str:
    """Returns the build id of an ELF file in hexadecimal; empty if it has none."""
    for name in (".note.gnu.build-id", ".notes"):  # the latter is the kernel's
        if (section := elf.get_section_by_name(name)) is not None:
            for note in section.iter_notes():
                if note["n_type"] == "NT_GNU_BUILD_ID" and note["n_name"] == "GNU":  # not Xen's note 3
                    return str(note["n_desc"])
    return ""


def _content(elf: Any, name: str) -> bytes:
    section = elf.get_section_by_name(name)
    return b"" if section is None else bytes(section.data())
