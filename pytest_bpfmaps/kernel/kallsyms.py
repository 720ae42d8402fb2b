"""Names for addresses in the kernel: ``/proc/kallsyms``."""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import UnsupportedError

_FARTHEST = 1 << 20  # no function is longer; what lies behind the last one of a module belongs to nobody
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Symbol:
    """The function that an address is in.

    `names` are all its names, the usual one first; `start` is its address, and `file` where it comes from:
    ``vmlinux``, a module's name, ``bpf``, or a path. Without names it is a file that has no symbol there, and
    `start` is the address of the file's first byte.
    """

    names: tuple[str, ...]
    start: int
    file: str


class KernelSymbols:
    """The kernel's symbols as they were when they were last read.

    They are 200,000 lines, most of which nobody asks for: they stay text, sorted by address.
    """

    def __init__(self, path: str = "/proc/kallsyms") -> None:
        self._path = path
        self._lines: list[bytes] = []
        self._core = range(0)

    def find(self, addresses: Iterable[int]) -> list[Symbol | None]:
        """The function of each address, None where there is none.

        Modules and BPF programs come and go at the same addresses, so for an address that is not in the
        kernel's own text the symbols are read again. Raises `UnsupportedError` when the kernel hides
        addresses.
        """
        wanted = list(addresses)
        if not self._lines or any(a not in self._core for a in wanted):
            self._read()
        return [self._find(a) for a in wanted]

    def _read(self) -> None:
        text = Path(self._path).read_bytes()
        lines = text.splitlines()
        lines.sort()  # nearly sorted already: the kernel's own, then each module's
        if not lines or lines[-1].startswith(b"0" * _DIGITS):
            raise _hidden()
        self._lines = lines
        self._core = range(_address_of(b"_stext", text), _address_of(b"_etext", text))

    def _find(self, address: int) -> Symbol | None:
        # the type letters of functions sort behind the address, and '~' behind all of them
        at = bisect_right(self._lines, b"%016x ~" % address)
        if not at:
            return None
        start = self._lines[at - 1][:_DIGITS]
        where = int(start, 16)
        if not where or address - where > _FARTHEST:
            return None
        first = at
        while first and self._lines[first - 1].startswith(start):
            first -= 1
        same = [line.decode().split() for line in self._lines[first:at]]
        functions = [s for s in same if s[1] in "tTwW"]
        if not functions:
            return None
        functions.sort(key=lambda s: (s[1] != "T", *preference(s[2])))
        origin = functions[0][3].strip("[]") if len(functions[0]) > 3 else "vmlinux"
        return Symbol(tuple(s[2] for s in functions), where, origin)


def _address_of(name: bytes, text: bytes) -> int:
    """Of one of the kernel's own symbols, which come first; 0 when it is not there."""
    at = text.find(b" %s\n" % name)
    return 0 if at < 0 else int(text[text.rfind(b"\n", 0, at) + 1 : at].split()[0], 16)


def preference(name: str) -> tuple[int, int, str]:
    """A sort key that puts the usual one of a function's names first: ``open`` before ``__open64``."""
    return len(name) - len(name.lstrip("_")), len(name), name


@cache
def kernel_symbols() -> KernelSymbols:
    """Those of the running kernel; read when they are first asked for, and kept."""
    return KernelSymbols()


def _hidden() -> UnsupportedError:
    try:
        setting = Path("/proc/sys/kernel/kptr_restrict").read_text().strip()
    except OSError:
        setting = "unknown"
    return UnsupportedError(
        "cannot name kernel addresses",
        on="from /proc/kallsyms",
        why=f"the kernel hides them from this process (kernel.kptr_restrict is {setting})",
        fix="run with CAP_SYSLOG, and with 'sysctl kernel.kptr_restrict=1' or 0",
        errno=errno.EPERM,
    )
