"""Large files that are mostly zero: copied with holes, and compared by the pages that are not zero."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

_PAGE = 4096
_CHUNK = 1 << 20


@contextmanager
def in_memory() -> Iterator[int]:
    """Gives the descriptor of a file in memory. It holds a part of a guest's state while that is saved."""
    fd = os.memfd_create("bpfmaps-memory")
    try:
        yield fd
    finally:
        os.close(fd)


def copy(source: int, target: Path) -> None:
    """Copies the file `source` with a hole for each page of zeros. Raises OSError, also for a full disk."""
    size = os.fstat(source).st_size
    with target.open("xb") as file:
        out = file.fileno()
        os.ftruncate(out, size)
        for start, end in _extents(source, size):
            for offset in range(start, end, _CHUNK):
                _copy_pages(os.pread(source, min(_CHUNK, end - offset), offset), out, offset)
        os.fsync(out)  # else, after a power failure, the file could have its name and not its bytes


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # ENXIO: no more data
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def _copy_pages(data: bytes, out: int, offset: int) -> None:
    zeros = bytes(_PAGE)
    view = memoryview(data)
    run = None  # start of the pages that the next write takes
    for at in range(0, len(data), _PAGE):
        if data[at : at + _PAGE] == zeros[: len(data) - at]:
            if run is not None:
                os.pwrite(out, view[run:at], offset + run)
            run = None
        elif run is None:
            run = at
    if run is not None:
        os.pwrite(out, view[run:], offset + run)


def digest(path: Path) -> str:
    """Returns a digest of the file's size and of its pages that are not zero. Holes make no difference.

    It shows damage, such as a truncated file or flipped bits. Raises OSError.
    """
    found = blake2b(digest_size=16)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        found.update(size.to_bytes(8, "little"))
        done = 0
        for start, end in _extents(file.fileno(), size):
            begin, done = max(done, start - start % _PAGE), end + -end % _PAGE  # whole pages, each one once
            for offset in range(begin, done, _CHUNK):
                data = os.pread(file.fileno(), min(_CHUNK, done - offset), offset)
                _add_pages(data, offset, found.update)
    return found.hexdigest()


def _add_pages(data: bytes, offset: int, add: Callable[[bytes], None]) -> None:
    zeros = bytes(_PAGE)
    for at in range(0, len(data), _PAGE):
        page = data[at : at + _PAGE]
        if page != zeros[: len(page)]:
            add((offset + at).to_bytes(8, "little") + page)
