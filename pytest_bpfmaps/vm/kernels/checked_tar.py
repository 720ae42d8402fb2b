"""Reads tar archives that may come from anybody.

`tarfile` reads long names and attributes into memory, whatever size they announce. It takes negative sizes,
and then reads the same member again and again. Here such an archive is a `RefusedArchive`.
"""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

_EXTENSIONS = frozenset(
    (
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    )
)
_MOST_OF_EXTENSION = 1 << 20  # bytes of a name, or of the attributes of one member
_MOST_IN_A_ROW = 8  # tarfile calls itself for each
_MOST_MEMBERS = 200_000
_MOST_WORDS = 4096  # bytes of what a tool says
_CHUNK = 1 << 20


class RefusedArchive(tarfile.ReadError):
    """The archive would take the memory, the disk or the time of this machine."""


@contextmanager
def open_tar(
    mode: Literal["r", "r|", "r|*"], most: int, *, path: Path | None = None, stream: IO[bytes] | None = None
) -> Iterator[tarfile.TarFile]:
    """Opens an archive, a file or a stream, of which `most` bytes may come out."""
    with tarfile.open(path, mode, stream, tarinfo=_checked_members(most), errorlevel=2) as archive:
        yield archive


def members(archive: tarfile.TarFile, most: int) -> Iterator[tarfile.TarInfo]:
    """Gives the members of an archive, while their sizes are no more than `most` bytes together."""
    left = most
    for number, member in enumerate(archive):
        left -= _checked_size(member.size)  # pax attributes may have changed it
        if left < 0:
            raise RefusedArchive(f"more than {most} bytes come out of it")
        if number >= _MOST_MEMBERS:
            raise RefusedArchive(f"it has more than {_MOST_MEMBERS} members")
        yield member


@contextmanager
def output_of(command: Sequence[str], stdin: IO[bytes], most: int) -> Iterator[IO[bytes]]:
    """Gives the output of a program that makes a tar archive of its input.

    At most `most` bytes after the archive are read. Raises `tarfile.ReadError` with the last words of a
    program that failed.
    """
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=words) as tool,
    ):
        assert tool.stdout is not None
        failed: Exception | None = None
        try:
            yield tool.stdout
            _read_rest(tool.stdout, most)
        except (tarfile.TarError, EOFError) as error:
            failed = error
            tool.stdout.close()  # a tool that goes on writing ends
        except BaseException:
            tool.kill()
            raise
        status = tool.wait()
        words.seek(max(words.seek(0, 2) - _MOST_WORDS, 0))
        said = words.read().decode(errors="replace").strip()
    if isinstance(failed, RefusedArchive):
        raise failed
    if failed is not None:
        raise tarfile.ReadError(said or str(failed)) from failed
    if status:
        raise tarfile.ReadError(said or f"{command[0]} ended with status {status}")


def _read_rest(stream: IO[bytes], most: int) -> None:
    left = most
    while chunk := stream.read(_CHUNK):
        left -= len(chunk)
        if left < 0:
            raise RefusedArchive(f"more than {most} bytes come out of it")


def _checked_members(most: int) -> type[tarfile.TarInfo]:
    left, in_a_row = most, 0

    class Member(tarfile.TarInfo):
        """A header of the archive that was just opened."""

        def _proc_member(self, archive: tarfile.TarFile) -> Any:
            """Checks the header, then does what `tarfile` does: every header comes here, in each Python."""
            nonlocal left, in_a_row
            size = _checked_size(self.size)
            if self.type not in _EXTENSIONS:
                in_a_row = 0
            else:
                in_a_row += 1
                left -= size
                if size > _MOST_OF_EXTENSION or in_a_row > _MOST_IN_A_ROW or left < 0:
                    raise RefusedArchive("the names or attributes of a member are too large")
            return super()._proc_member(archive)  # type: ignore[misc]

    return Member


def _checked_size(size: int) -> int:
    if size < 0:
        raise RefusedArchive(f"a member has a size of {size} bytes")
    return size
