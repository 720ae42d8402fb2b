"""Keeps ``vmlinux.h`` as a precompiled header, with which a source takes half the time to compile.

Reading the text takes more than half of the time of a usual compilation. clang makes the precompiled header
when ``vmlinux.h`` is used for the second time, because that takes as long as two compilations. clang itself
refuses one that was made by another clang, with other options, or from another text.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_bpfmaps.cache.stored_files import (
    digest,
    discard,
    place,
    read,
    read_checked,
    scratch_folder,
    write_checked,
)
from pytest_bpfmaps.cache.unchanged_files import UnchangedFiles
from pytest_bpfmaps.compiler.clang import Clang, Outcome

_COMMENT = re.compile(rb"\s+|//(?:\\\n|[^\n])*|/\*.*?\*/", re.DOTALL)
_INCLUDE = re.compile(rb'#[ \t]*include[ \t]*["<]vmlinux\.h[">]')
_GUARD = b"#ifndef __VMLINUX_H__\n#define __VMLINUX_H__\n"
_UNUSABLE = "unusable"
_contents: UnchangedFiles[str] = UnchangedFiles()


def begins_with_vmlinux(text: bytes) -> bool:
    """Returns whether a source includes ``vmlinux.h`` before it does anything else."""
    at = 0
    while comment := _COMMENT.match(text, at):
        at = comment.end()
    return _INCLUDE.match(text, at) is not None


@dataclass(frozen=True)
class PrecompiledHeader:
    """The precompiled ``vmlinux.h`` of `folder`, for `clang` with the options `flags`. `run` runs clang."""

    folder: Path
    clang: Clang
    flags: Sequence[str]
    run: Callable[[Sequence[str]], Outcome]

    def path(self) -> Path | None:
        """Returns the file; None if it is not worth making yet, or clang can't make it. Raises `OSError`."""
        from filelock import FileLock, Timeout

        made = self.folder / f"{self._key()}.pch"
        mark = made.with_suffix(".digest")
        known = read_checked(mark)
        if known is None:
            write_checked(mark, "")  # the first use
        elif known == "":
            with (
                contextlib.suppress(Timeout),  # another process makes it
                FileLock(self._root / "locks" / made.name).acquire(timeout=0),
            ):
                known = self._make(made)
                write_checked(mark, known)
        return made if known and known != _UNUSABLE and self._is_intact(made, known) else None

    def _key(self) -> str:
        status = self.header.stat()
        return digest(self.clang.identity, repr(list(self.flags)), f"{status.st_mtime_ns} {status.st_size}")

    @property
    def header(self) -> Path:
        """The text."""
        return self.folder / "vmlinux.h"

    @property
    def _root(self) -> Path:
        return self.folder.parent.parent

    def _make(self, target: Path) -> str:
        """Makes the file, and returns its digest, or `_UNUSABLE`.

        It is unusable, too, if clang warns of something, which the user of each source should see, and if
        the text is not to be read once only, or includes other files.
        """
        text = self.header.read_bytes()
        if not text.startswith(_GUARD) or b"#include" in text:
            return _UNUSABLE
        with scratch_folder(self._root) as scratch:
            made = scratch / "made.pch"
            outcome = self.run([*self.flags, "-x", "c-header", str(self.header), "-o", str(made)])
            if outcome.code or outcome.output or not made.exists():
                return _UNUSABLE
            content = digest(made.read_bytes())
            place(made, target)
        return content

    def _is_intact(self, made: Path, content: str) -> bool:
        """Returns whether the file has not changed since it was made. A damaged one is made again."""
        with contextlib.suppress(OSError):
            if _contents.get(str(made), lambda: digest(read(made))) == content:
                return True
            discard(made)
        write_checked(made.with_suffix(".digest"), "")
        return False
