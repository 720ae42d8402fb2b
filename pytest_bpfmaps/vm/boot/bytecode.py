"""Makes bytecode of this package for guests. Compiling costs thirty times as much there as on the host.

Python may have been told not to write bytecode beside the sources (``PYTHONDONTWRITEBYTECODE``), or may be
unable to. What is missing there goes into an archive in the cache. A guest unpacks it into the writable layer
of its file system, and so sees the files beside the sources. Python checks each file against its source, so
an old one does no harm.
"""

from __future__ import annotations

import importlib.util
import py_compile
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from pytest_bpfmaps import paths
from pytest_bpfmaps.cache.stored_files import digest, discard, own, place, read, scratch_folder

_KEPT = 3600.0  # seconds: a guest may still boot from an older archive


def archive() -> Path:
    """Returns a tar file with the bytecode that this package's modules lack, by absolute path."""
    missing = list(_missing())
    key = sha256(
        repr([(str(s), s.stat().st_mtime_ns, s.stat().st_size) for s in missing]).encode()
    ).hexdigest()[:16]
    folder = own(paths.cache_dir())
    for made in folder.glob(f"bytecode-{key}-*.tar"):
        with suppress(OSError):  # another process removes it
            if made.name == _name(key, read(made)):
                return made
            discard(made)
    with scratch_folder(folder) as scratch:
        made = scratch / "bytecode.tar"
        _write(made, missing, scratch / "one.pyc")
        for old in folder.glob("bytecode-*.tar"):
            if time.time() - old.stat().st_mtime > _KEPT:
                old.unlink(missing_ok=True)
        target = folder / _name(key, made.read_bytes())
        place(made, target)
    return target


def _name(key: str, content: bytes) -> str:
    return f"bytecode-{key}-{digest(content)}.tar"


def _missing() -> Iterator[Path]:
    for source in sorted(paths.PACKAGE.rglob("*.py")):
        if not is_current(Path(importlib.util.cache_from_source(str(source))), source):
            yield source


def is_current(bytecode: Path, source: Path) -> bool:
    """Returns whether the header of a bytecode file has its source's time and size (PEP 552)."""
    try:
        with bytecode.open("rb") as file:
            header = file.read(16)
    except OSError:
        return False
    status = source.stat()
    facts = b"".join((int(n) & 0xFFFFFFFF).to_bytes(4, "little") for n in (status.st_mtime, status.st_size))
    return header == importlib.util.MAGIC_NUMBER + bytes(4) + facts


def lacking(files: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Gives name and content of the bytecode that sources among `files` lack."""
    for file in files:
        target = importlib.util.cache_from_source(file) if file.endswith(".py") else file
        if target != file and not is_current(Path(target), Path(file)):
            with suppress(py_compile.PyCompileError):
                yield target, compiled(file)


def without_bytecode(files: Iterable[str]) -> list[str]:
    """Returns `files` without the bytecode of sources that are among them: it changes only with these."""
    files = list(files)
    made = {importlib.util.cache_from_source(file) for file in files if file.endswith(".py")}
    return [file for file in files if file not in made]


def compiled(source: str) -> bytes:
    """Returns the content of the bytecode file of `source`. Raises py_compile.PyCompileError."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "one.pyc")
        py_compile.compile(source, str(made), dfile=source, doraise=True)
        return made.read_bytes()


def _write(target: Path, sources: list[Path], scratch: Path) -> None:
    """Writes the archive. Folders get their own mode and owner, because the guest sees them as the host's."""
    folders = {folder for source in sources for folder in source.parents if folder != Path("/")}
    with tarfile.open(target, "w") as tar:
        for folder in sorted(folders):
            tar.add(folder, recursive=False)
        for source in sources:
            try:
                py_compile.compile(str(source), str(scratch), dfile=str(source), doraise=True)
            except py_compile.PyCompileError:
                continue  # the guest's Python will report the error
            tar.add(scratch, importlib.util.cache_from_source(str(source)))
