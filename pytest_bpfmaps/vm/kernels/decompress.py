"""Decompresses the payload of a kernel image (by any ``CONFIG_KERNEL_*``), or a module.

A few kilobytes can unpack to gigabytes. So everything has a limit, and only one piece at a time is in memory
before it is checked.
"""

from __future__ import annotations

import bz2
import lzma
import resource
import shutil
import signal
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Protocol

_CHUNK = 1 << 20


class _Stream(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor, with the methods that those of lzma and bz2 have."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


def decompress(payload: bytes, out: IO[bytes]) -> None:
    """Writes the decompressed `payload` to `out`.

    Raises ValueError when the payload is damaged, of an unknown format, or when its command is not installed.
    """
    for magic, unpack in _FORMATS:
        if payload.startswith(magic):
            unpack(payload, out)
            _check_size(payload, out)
            return
    raise ValueError(f"its payload starts with the unknown bytes {payload[:6].hex(' ')}")


def _check_size(payload: bytes, out: IO[bytes]) -> None:
    """Compares the size with the one that the build appends.

    lz4's old format shows damage in no other way.
    """
    size, expected = out.seek(0, 2), _announced_size(payload)
    if size != expected:
        raise ValueError(f"its payload gives {size} bytes and not {expected}")


def _announced_size(payload: bytes) -> int:
    return int.from_bytes(payload[-4:], "little")


def _with_python(name: str, new: Callable[[], _Stream]) -> Callable[[bytes, IO[bytes]], None]:
    # A decompressor object stops at the end of its stream, before the appended size.
    def unpack(payload: bytes, out: IO[bytes]) -> None:
        most = _announced_size(payload)
        try:
            for piece in _pieces(new(), payload):
                if out.write(piece) and out.tell() > most:
                    raise ValueError(f"its {name} payload gives more than the {most} bytes that it announces")
        except (zlib.error, lzma.LZMAError, OSError, MemoryError) as error:  # bz2 raises OSError
            raise ValueError(f"its {name} payload is damaged ({error})") from error
        except EOFError:
            raise ValueError(f"its {name} payload ends early") from None

    return unpack


def _pieces(stream: _Stream, data: bytes) -> Iterator[bytes]:
    """Gives what `data` unpacks to, a piece at a time. Raises EOFError when it ends early."""
    for start in range(0, len(data), _CHUNK):
        piece = stream.decompress(data[start : start + _CHUNK], _CHUNK)
        while piece:
            yield piece
            piece = b"" if stream.eof else stream.decompress(b"", _CHUNK)
        if stream.eof:
            return
    raise EOFError


def decompress_module(data: bytes, suffix: str, most: int) -> bytes:
    """Returns the ELF bytes of a kernel module whose file name ends in `suffix`.

    Raises ValueError when it is damaged, or has more than `most` bytes. Raises OSError when zstd is missing.
    """
    if suffix == ".zst":
        with tempfile.TemporaryFile() as out:
            _run(("zstd", "-dcq"), data, out, most, f"it unpacks to more than {most} bytes")
            out.seek(0)
            return out.read()
    new = _MODULES.get(suffix)
    if new is None:
        return data
    unpacked = bytearray()
    try:
        for piece in _pieces(new(), data):
            unpacked += piece
            if len(unpacked) > most:
                raise ValueError(f"it unpacks to more than {most} bytes")
    except (zlib.error, lzma.LZMAError, OSError) as error:
        raise ValueError(f"it is damaged ({error})") from error
    except EOFError:
        raise ValueError("it ends early") from None
    return bytes(unpacked)


def _with_command(*command: str) -> Callable[[bytes, IO[bytes]], None]:
    def unpack(payload: bytes, out: IO[bytes]) -> None:
        if shutil.which(command[0]) is None:
            raise ValueError(f"it is compressed for {command[0]!r}, which is not installed")
        out.flush()
        most = _announced_size(payload)
        too_large = f"its {command[0]} payload gives more than the {most} bytes that it announces"
        # These commands take the appended size for the start of another, broken, frame.
        _run(command, payload[:-4], out, most, too_large)

    return unpack


def _run(command: Sequence[str], data: bytes, out: IO[bytes], most: int, too_large: str) -> None:
    """Has a command decompress `data` into the file `out`.

    Raises ValueError for damaged data, and with the text `too_large` for more than `most` bytes. Raises
    OSError when the command is missing.
    """
    done = subprocess.run(
        command,
        input=data,
        stdout=out,
        stderr=subprocess.PIPE,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )
    if done.returncode == -signal.SIGXFSZ:
        raise ValueError(too_large)
    if done.returncode:
        raise ValueError(f"{command[0]}: {done.stderr.decode(errors='replace').strip()}")


_MODULES: dict[str, Callable[[], _Stream]] = {
    ".gz": _Gzip,
    ".xz": lzma.LZMADecompressor,
    ".bz2": bz2.BZ2Decompressor,
}
_FORMATS: tuple[tuple[bytes, Callable[[bytes, IO[bytes]], None]], ...] = (
    (b"\x1f\x8b", _with_python("gzip", _Gzip)),
    (b"\xfd7zXZ\x00", _with_python("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ))),
    (b"BZh", _with_python("bzip2", bz2.BZ2Decompressor)),
    (b"\x5d\x00\x00", _with_python("lzma", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE))),
    (b"\x28\xb5\x2f\xfd", _with_command("zstd", "-dcq", "-")),
    (b"\x02\x21\x4c\x18", _with_command("lz4", "-dcq", "-", "-")),
    (b"\x89LZO\x00", _with_command("lzop", "-dc")),
)
