"""Finds the kernel's function at an address, in ``/proc/kallsyms``."""

from __future__ import annotations

import errno
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pytest_bpfmaps.elf.functions_by_address import preference
from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.kernel.symbol_changes import bpf_programs, loaded_modules

_FARTHEST = 1 << 20  # bytes: no function is longer, so an address further away is in no function
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class FunctionSymbol:
    """The function that an address is in.

    `names` has all its names, the usual one first. `start` is its address. `file` is its origin: ``vmlinux``,
    a module's name, ``bpf``, or a path. If `names` is empty, the file has no symbol there, and `start` is the
    address of the file's first byte.
    """

    names: tuple[str, ...]
    start: int
    file: str


class KernelSymbols:
    """The kernel's symbols at the time of the last read.

    The file has 200,000 lines, and few of them are needed. So it is kept as one text. The kernel's own
    symbols come first, ordered by address. Symbols of modules and BPF programs come and go. `programs`
    returns another value when BPF programs have changed.
    """

    def __init__(self, path: str = "/proc/kallsyms", programs: Callable[[], object] = bpf_programs) -> None:
        self._path = path
        self._programs = programs
        self._as_of: tuple[object, object] | None = None
        self._text = b""
        self._own = range(0)  # the part of the text with the kernel's own symbols
        self._others: list[bytes] = []
        self._core = range(0)  # the addresses of the kernel's own code
        self._found: dict[int, FunctionSymbol | None] = {}

    @property
    def text(self) -> bytes:
        """The text of the file; read again when modules have changed."""
        if self._as_of is None or self._as_of[0] != loaded_modules():
            self._read()
        return self._text

    def find(self, addresses: Iterable[int]) -> list[FunctionSymbol | None]:
        """Returns the function of each address, None if there is none.

        Modules and BPF programs come and go at the same addresses. So for an address outside of the kernel's
        own text the symbols are read again if modules or programs have changed. Raises `UnsupportedError` if
        the kernel hides addresses.
        """
        wanted = list(addresses)
        others = [a for a in wanted if a not in self._core]
        if self._as_of is None or (others and self._as_of != self._now()):
            self._read()
        elif any(a not in self._found and self._find(a) is None for a in others):
            self._read()  # code such as ftrace's trampolines belongs to no program, and changes unnoticed
        if not self._core.start:
            raise _hidden()
        self._found.update((a, self._find(a)) for a in wanted if a not in self._found)
        return [self._found[a] for a in wanted]

    def _now(self) -> tuple[object, object]:
        return loaded_modules(), self._programs()

    def _read(self) -> None:
        self._as_of, self._found = self._now(), {}
        text = self._text = Path(self._path).read_bytes()
        bracket = text.find(b"\t[")  # the name of a module
        end = text.rfind(b"\n", 0, bracket) + 1 if bracket >= 0 else len(text)
        self._own, self._others = range(end), sorted(text[end:].splitlines())
        self._core = range(_address_of(b"_stext", text), _address_of(b"_etext", text))

    def _find(self, address: int) -> FunctionSymbol | None:
        same = self._lines_before(address)
        where = _address(same[0]) if same else 0
        if not where or address - where > _FARTHEST:
            return None
        functions = [s for s in (line.decode().split() for line in same) if s[1] in "tTwW"]
        if not functions:
            return None
        functions.sort(key=lambda s: (s[1] != "T", *preference(s[2])))
        origin = functions[0][3].strip("[]") if len(functions[0]) > 3 else "vmlinux"
        return FunctionSymbol(tuple(s[2] for s in functions), where, origin)

    def _lines_before(self, address: int) -> list[bytes]:
        """Returns the lines with the highest address that is not above this one."""
        end = bisect_right(self._own, address, key=self._address_at)
        begin = bisect_left(self._own, self._address_at(end - 1), 0, end, key=self._address_at) if end else 0
        own = self._text[begin:end].splitlines()
        others = self._others[: bisect_right(self._others, address, key=_address)]
        others = others[bisect_left(others, _address(others[-1]), key=_address) :] if others else []
        last = max(_address(lines[0]) for lines in (own, others, [b"0"]) if lines)
        return [line for line in (*own, *others) if _address(line) == last]

    def _address_at(self, place: int) -> int:
        """Returns the address in the line at an offset of the text."""
        start = self._text.rfind(b"\n", 0, place) + 1
        return int(self._text[start : start + _DIGITS] or b"0", 16)


def _address(line: bytes) -> int:
    return int(line[:_DIGITS], 16)


def _address_of(name: bytes, text: bytes) -> int:
    """Returns the address of one of the kernel's own symbols; 0 if it does not exist."""
    at = text.find(b" %s\n" % name)
    return 0 if at < 0 else int(text[text.rfind(b"\n", 0, at) + 1 : at].split()[0], 16)


@cache
def kernel_symbols() -> KernelSymbols:
    """Returns the symbols of the running kernel; they are read when they are first needed, and kept."""
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
