"""Finds the function of a process at an address, from its mapped files and their symbols."""

from __future__ import annotations

import contextlib
import errno
import os
from bisect import bisect_right
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Protocol

from pytest_bpfmaps.elf.functions_by_address import ElfSymbols, elf_symbols
from pytest_bpfmaps.elf.process_mappings import DELETED, Mapping, mappings_of
from pytest_bpfmaps.errors import UnsupportedError, remedy
from pytest_bpfmaps.kernel.kallsyms import FunctionSymbol


class HasPid(Protocol):
    """An object with a pid, such as `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...


class ProcessSymbols:
    """Finds names for the addresses of a process, by the files that it has mapped now.

    The symbols are read from the files when they are needed, which also works after the process has ended.
    ``/tmp/perf-PID.map`` names code that is made at run time; ``python -X perf`` (3.12 and later), Node.js
    and Java write it.

    Raises `UnsupportedError`, with `ESRCH` for a process that has ended, and `EACCES` for one of another
    user. Source: proc_pid_maps(5); ``tools/perf/Documentation/jit-interface.txt`` of the kernel.
    """

    def __init__(self, process: int | HasPid | None = None) -> None:
        self.pid = os.getpid() if process is None else process if isinstance(process, int) else process.pid
        self.mappings = [m for m in self._mapped() if m.runs]
        self._starts = [m.start for m in self.mappings]

    def find(self, address: int) -> FunctionSymbol | None:
        """Returns the function that the address is in, or the file if no symbol names the function.

        Returns None if no code is mapped there, or if the code has no file and no name.
        """
        mapping = self.mapping(address)
        if mapping is None:
            return None
        symbols = self._symbols(mapping)
        begin = mapping.start - mapping.offset
        if symbols is None:  # memory of no file, or of none with symbols
            return self._jitted(address) or (
                FunctionSymbol((), begin, mapping.path) if mapping.path else None
            )
        found = symbols.find(address - begin)
        return (
            FunctionSymbol(found[0], found[1] + begin, mapping.path)
            if found
            else FunctionSymbol((), begin, mapping.path)
        )

    def find_in_file(self, build_id: str, offset: int) -> FunctionSymbol | None:
        """Returns the function at an offset in the mapped file with that build id (hexadecimal).

        Returns None if this process has not mapped such a file.
        """
        for mapping in self.mappings:
            symbols = self._symbols(mapping)
            if symbols is not None and symbols.build_id == build_id:
                names, start = symbols.find(offset) or ((), 0)
                return FunctionSymbol(names, start, mapping.path)
        return None

    def mapping(self, address: int) -> Mapping | None:
        """Returns the mapping that the address is in."""
        at = bisect_right(self._starts, address)
        found = self.mappings[at - 1] if at else None
        return found if found and address < found.end else None

    def _mapped(self) -> list[Mapping]:
        try:
            found = mappings_of(self.pid)
        except OSError as e:
            raise _unreadable(self.pid, e.errno or 0, e.strerror) from e
        if not found:  # a zombie: its memory is gone
            raise _unreadable(self.pid, errno.ESRCH, "it has ended")
        return found

    def _symbols(self, mapping: Mapping) -> ElfSymbols | None:
        """Returns the symbols of the file as the process sees it: in its mount namespace, or deleted."""
        if not mapping.is_file:
            return None
        path = mapping.path.removesuffix(DELETED)
        places = [
            f"/proc/{self.pid}/map_files/{mapping.start:x}-{mapping.end:x}",
            f"/proc/{self.pid}/root{path}",
            path,
        ]
        return next((s for p in places if (s := elf_symbols(p)) is not None), None)

    def _jitted(self, address: int) -> FunctionSymbol | None:
        at = bisect_right(self._perf_map, (address, 1 << 64, ""))
        if not at:
            return None
        start, size, name = self._perf_map[at - 1]
        return FunctionSymbol((name,), start, f"/tmp/perf-{self.pid}.map") if address < start + size else None

    @cached_property
    def _perf_map(self) -> list[tuple[int, int, str]]:
        for folder in (f"/proc/{self.pid}/root/tmp", "/tmp"):
            try:
                text = Path(folder, f"perf-{self.pid}.map").read_text(errors="replace")
            except OSError:
                continue
            return sorted(_perf_entries(text.splitlines()))
        return []


def _perf_entries(lines: Iterable[str]) -> Iterable[tuple[int, int, str]]:
    for line in lines:
        parts = line.split(" ", 2)
        if len(parts) == 3:
            with contextlib.suppress(ValueError):  # any program may write there, and a line may be cut off
                yield int(parts[0], 16), int(parts[1], 16), parts[2]


def _unreadable(pid: int, number: int, why: str | None) -> UnsupportedError:
    on = f"of process {pid}"
    if number in (errno.ENOENT, errno.ESRCH):
        return UnsupportedError(
            "cannot name the user addresses",
            on=on,
            why="it has ended",
            fix="read the trace while it runs; or make ProcessSymbols(pid) before it ends, and give that",
            errno=errno.ESRCH,
        )
    fix = remedy(number, "run as root, or as the user of that process")
    return UnsupportedError("cannot name the user addresses", on=on, why=why, fix=fix, errno=number)
