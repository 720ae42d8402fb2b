"""Finds the code that a process uses for an IFUNC: a resolver chooses it when the program starts.

The dynamic linker writes the address of the chosen code into tables in the process's memory: the table of the
file that has the function (``R_*_IRELATIVE``), and the tables of the files that call it. Source: the System V
ABI of each architecture, "Relocation"; ``elf_ifunc_invoke`` of glibc.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_bpfmaps.elf.binaries import MappedFile, mapped_files, mappings
from pytest_bpfmaps.elf.functions_by_name import Function, elf_functions, symbol_versions
from pytest_bpfmaps.elf.reader import ElfError, loaded_segments, open_elf
from pytest_bpfmaps.elf.symbol_table import SymbolTable

_RELOCATION = struct.Struct("=QQq")
_IRELATIVE = {"EM_X86_64": 37, "EM_AARCH64": 1032}
_BY_SYMBOL = {"EM_X86_64": (1, 6, 7), "EM_AARCH64": (257, 1025, 1026)}  # absolute, GLOB_DAT, JUMP_SLOT
_VERSION = 0x7FFF
_WORD = struct.Struct("=Q")


class NotChosen(LookupError):
    """The choice of a resolver can't be found out; the text says why."""


def chosen_code(binary: Path, function: Function, pid: int | None) -> tuple[Path, int]:
    """Returns the file and the offset in it of the code that a process uses for an IFUNC.

    Without `pid` that is the code of this process, or else of any process that has the file mapped: the
    choice depends only on the processor. Raises `NotChosen`, `ElfError`.
    """
    if pid in (None, os.getpid()) and (own := _own(binary, function)) is not None:
        return own
    if pid is not None:
        return _chosen_in(binary, function, pid)
    why = f"no process here has {binary} mapped"
    for process in _processes(binary):
        try:
            return _chosen_in(binary, function, process)
        except NotChosen as e:
            why = str(e)
        except OSError:
            continue
    raise NotChosen(why)


def _own(binary: Path, function: Function) -> tuple[Path, int] | None:
    """Returns what this process's dynamic linker says; None if it has not loaded the file."""
    if binary not in mapped_files():
        return None
    noload = os.RTLD_NOLOAD | os.RTLD_LAZY
    try:
        library = ctypes.CDLL(str(binary), mode=noload)
        find = ctypes.CDLL(None).dlvsym if function.version else ctypes.CDLL(None).dlsym
    except (OSError, AttributeError):
        return None
    find.restype = ctypes.c_void_p
    arguments = [function.version.encode()] if function.version else []
    handle = ctypes.c_void_p(library._handle)  # noqa: SLF001 - ctypes' documentation has this name
    address = find(handle, function.name.encode(), *arguments)
    return _place(address, mappings(), "this process") if address else None


def _processes(binary: Path) -> Iterator[int]:
    """Yields this process, then the other processes, if they have the file mapped."""
    others = (int(p) for p in os.listdir("/proc") if p.isdecimal() and int(p) != os.getpid())
    wanted = os.stat(binary)
    for pid in (os.getpid(), *others):
        try:
            files = mapped_files(pid)
            if any(file.name == binary.name and os.path.samestat(os.stat(file), wanted) for file in files):
                yield pid
        except OSError:
            continue  # it has ended, or its file was deleted


def _chosen_in(binary: Path, function: Function, pid: int) -> tuple[Path, int]:
    who = f"process {pid}"
    try:
        mapped = mappings(pid)
        with open(f"/proc/{pid}/mem", "rb", 0) as memory:
            return _read_choice(binary, function, mapped, memory, who)
    except ProcessLookupError:
        raise NotChosen(f"there is no {who}") from None
    except FileNotFoundError:
        raise NotChosen(f"there is no {who}") from None
    except PermissionError:
        raise NotChosen(f"this user may not read the memory of {who}") from None


def _read_choice(
    binary: Path, function: Function, mapped: list[MappedFile], memory: Any, who: str
) -> tuple[Path, int]:
    files = list(dict.fromkeys(m.path for m in mapped))
    if (own := next((f for f in files if _same(f, binary)), None)) is None:
        raise NotChosen(f"{who} has not mapped {binary}")
    for file in (own, *(f for f in files if f != own)):
        try:
            slots = list(_slots(file, function, own=file == own))
        except (ElfError, OSError):
            continue
        for address, initial in slots:
            at, bias = _in_memory(file, address, mapped)
            if at is None:
                continue
            memory.seek(at)
            (value,) = _WORD.unpack(memory.read(_WORD.size))
            if value and value != initial + bias:  # the dynamic linker has written the chosen address
                return _place(value, mapped, who)
    raise NotChosen(f"{who} has not called it yet, or only by an address that it got from the linker")


def _slots(file: Path, function: Function, *, own: bool) -> Iterator[tuple[int, int]]:
    """Yields the address of each word that the linker fills with the choice, and its initial value."""
    with open_elf(file) as elf:
        machine = elf["e_machine"]
        if elf.elfclass != 64 or machine not in _IRELATIVE:
            return
        numbers = frozenset(_numbers(elf, function))
        for section in elf.iter_sections():
            if section["sh_type"] != "SHT_RELA":
                continue
            raw = section.data()
            for address, info, addend in _RELOCATION.iter_unpack(raw[: len(raw) // 24 * 24]):
                kind, symbol = info & 0xFFFFFFFF, info >> 32
                is_own = own and kind == _IRELATIVE[machine] and addend == function.address
                if is_own or (symbol in numbers and kind in _BY_SYMBOL[machine]):
                    yield address, _initial(elf, address)


def _numbers(elf: Any, function: Function) -> Iterator[int]:
    """Yields the numbers of the function's dynamic symbols in the file."""
    versions, names = symbol_versions(elf)
    for number in SymbolTable(elf, ".dynsym").numbers(function.name):
        version = names.get(versions[number] & _VERSION, "") if number < len(versions) else ""
        if not version or not function.version or version == function.version:
            yield number


def _initial(elf: Any, address: int) -> int:
    """Returns the word that the file has at an address; usually it points to the procedure linkage table."""
    for s in loaded_segments(elf):
        if s["p_vaddr"] <= address < s["p_vaddr"] + s["p_filesz"]:
            elf.stream.seek(s["p_offset"] + address - s["p_vaddr"])
            return int(_WORD.unpack(elf.stream.read(_WORD.size))[0])
    return 0


def _in_memory(file: Path, address: int, mapped: list[MappedFile]) -> tuple[int | None, int]:
    """Returns the address in a process of an address in a file, and the difference of the two."""
    functions = elf_functions(file)
    for m in mapped:
        if m.path == file and (starts := functions.address(m.offset)) is not None:
            bias = m.start - starts
            return address + bias, bias
    return None, 0


def _place(address: int, mapped: list[MappedFile], who: str) -> tuple[Path, int]:
    for m in mapped:
        if m.start <= address < m.end:
            return m.path, address - m.start + m.offset
    raise NotChosen(f"{who} uses code that is in no file (usually the vDSO), and a uprobe needs a file")


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:
        return False
