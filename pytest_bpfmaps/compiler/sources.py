"""Finds and reads BPF sources."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_bpfmaps.compiler.request import CompileRequest
from pytest_bpfmaps.errors import CompileError, SourceNotFoundError, closest, shown, strerror

SUFFIXES = (".bpf.c", ".bpf.o")
LARGEST = 256 << 20
"""The most bytes that a source or object may have. Real ones have a few megabytes."""


def find_source(name: str | os.PathLike[str], folders: Iterable[str | os.PathLike[str]]) -> Path:
    """Returns the absolute path of the source or object `name`, in the first of `folders` that has it.

    `name` may be an absolute path. Raises a `SourceNotFoundError` with the places that were searched, and
    similar names there, and a `CompileError` for a file that is too large to be a source or object.
    """
    known_folders = list(folders)
    tried = [os.path.join(folder, name) for folder in known_folders] if not os.path.isabs(name) else [name]
    for path in tried:
        if os.path.isfile(path):  # False where the name is too long
            if too_large := explain_size(path):
                raise CompileError("cannot read", on=shown(str(path)), why=too_large, errno=errno.EFBIG)
            return Path(path).absolute()
    looked_in = [Path(folder).absolute() for folder in known_folders]
    places = [Path(path).absolute() for path in tried]
    if other := next(filter(os.path.lexists, places), None):
        raise SourceNotFoundError(
            "cannot find the BPF source",
            on=repr(os.fspath(name)),
            why=f"{shown(str(other))} is {_what(other)}",
            fix="name a .bpf.c or .bpf.o file",
        )
    known = list(_known(looked_in if not os.path.isabs(name) else [Path(name).parent]))
    raise SourceNotFoundError(
        "cannot find the BPF source",
        on=repr(os.fspath(name)),
        why="no such file at " + ", ".join(shown(str(place)) for place in places),
        fix=closest(os.path.basename(name), known)
        if known
        else "put it beside the test or in a folder of bpf_paths",
    )


def explain_size(path: str | os.PathLike[str]) -> str | None:
    """Returns a sentence if a file is too large to be a source or object: reading it fills the memory."""
    size = os.path.getsize(path)
    if size <= LARGEST:
        return None
    return f"it has {size >> 20} MB, and a source or object has at most {LARGEST >> 20} MB"


def _what(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a link to a missing file" if path.is_symlink() and not os.path.exists(path) else "no file"


def _known(folders: Iterable[Path]) -> Iterator[str]:
    for folder in folders:
        if folder.is_dir():
            yield from (path.name for path in folder.iterdir() if path.name.endswith(SUFFIXES))


def read_source(request: CompileRequest) -> bytes:
    """Returns the text of the request's source. Raises `CompileError` if it can't be read."""
    if request.source is None:
        return (request.code or "").encode(errors="surrogateescape")
    path = Path(request.source)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        find_source(path, ())
        raise
    except OSError as e:
        raise CompileError(
            "cannot read the BPF source",
            on=request.source,
            why=strerror(e.errno or 0),
            fix="name a .bpf.c file that this user may read",
            errno=e.errno,
        ) from e
