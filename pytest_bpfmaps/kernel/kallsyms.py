"""Finds the kernel's function at an address: ``/proc/kallsyms``."""

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

_FARTHEST = 1 << 20  # no function is longer; what lies behind the last one of a module belongs to nobody
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class FunctionSymbol:
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

    They are 200,000 lines, most of which nobody asks for: they stay one text, in which the kernel's own are
    first and in the order of their addresses. Those of modules and BPF programs come and go; `programs` gives
    another value when programs did.
    """

    def __init__(self, path: str = "/proc/kallsyms", programs: Callable[[], object] = bpf_programs) -> None:
        self._path = path
        self._programs = programs
        self._as_of: tuple[object, object] | None = None
        self._text = b""
        self._own = range(0)  # where the kernel's own are in the text
        self._others: list[bytes] = []
        self._core = range(0)
        self._found: dict[int, FunctionSymbol | None] = {}

    @property
    def text(self) -> bytes:
        """All of it; read again when modules came or went."""
        if self._as_of is None or self._as_of[0] != loaded_modules():
            self._read()
        return self._text

    def find(self, addresses: Iterable[int]) -> list[FunctionSymbol | None]:
        """The function of each address, None where there is none.

        Modules and BPF programs come and go at the same addresses, so for an address that is not in the
        kernel's own text the symbols are read again when some did. Raises `UnsupportedError` when the kernel
        hides addresses.
        """
        wanted = list(addresses)
        others = [a for a in wanted if a not in self._core]
        if self._as_of is None or (others and self._as_of != self._now()):
            self._read()
        elif any(a not in self._found and self._find(a) is None for a in others):
            self._read()  # what belongs to no program, as ftrace's trampolines, comes and goes unseen
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
        """The lines of the last address that is not behind this one."""
        end = bisect_right(self._own, address, key=self._address_at)
        begin = bisect_left(self._own, self._address_at(end - 1), 0, end, key=self._address_at) if end else 0
        own = self._text[begin:end].splitlines()
        others = self._others[: bisect_right(self._others, address, key=_address)]
        others = others[bisect_left(others, _address(others[-1]), key=_address) :] if others else []
        last = max(_address(lines[0]) for lines in (own, others, [b"0"]) if lines)
        return [line for line in (*own, *others) if _address(line) == last]

    def _address_at(self, place: int) -> int:
        """The address in the line that a place of the text is in."""
        start = self._text.rfind(b"\n", 0, place) + 1
        return int(self._text[start : start + _DIGITS] or b"0", 16)


def _address(line: bytes) -> int:
    return int(line[:_DIGITS], 16)


def _address_of(name: bytes, text: bytes) -> int:
    """Of one of the kernel's own symbols, which come first; 0 when it is not there."""
    at = text.find(b" %s\n" % name)
    return 0 if at < 0 else int(text[text.rfind(b"\n", 0, at) + 1 : at].split()[0], 16)


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
