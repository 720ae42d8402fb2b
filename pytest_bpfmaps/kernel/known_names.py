"""Names that kernels have: they distinguish a misspelt name from a name that this kernel lacks.

``fixtures/record_names.py`` records them from real kernels: Debian's from 5.10 on, with their modules and
BTF, and Ubuntu's from 4.4 on, with modules of 4.4, 4.15 and 5.4. The files are sorted plain text; names of
modules have the module after each name. They are read only when a probe has not found a name. The kernels of
the catalogue are searched, too: their BTF, and their System.map if they have one.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pytest_bpfmaps.elf.name_search import Names, tell_closest
from pytest_bpfmaps.paths import kernels_dir

RECORDED = "22 releases of Linux from 4.4 to 7.2"
_LONGEST = 512  # bytes, more than a line has
_BTF_HEADER, _BTF_MAGIC = struct.Struct("=4x5I"), (0xEB9F).to_bytes(2, sys.byteorder)  # struct btf_header
_FOLDER = Path(__file__).with_name("recorded_names")
# Other functions that tools attach to: of kernels before 4.4 and between the recorded ones, of kernels with
# lockdep, and of ZFS.
_OTHERS = """
    __do_execve_file do_generic_file_read do_fork vfs_dedupe_get_page mutex_lock_nested
    mutex_lock_interruptible_nested mutex_lock_killable_nested down_read_nested down_read_killable_nested
    down_write_nested down_write_killable_nested zpl_aio_read zpl_aio_write zpl_fsync zpl_iter_read
    zpl_iter_write zpl_open zpl_read zpl_write
"""
_SYSCALL = re.compile(
    r"^(?:__(?:x64|ia32|arm64|riscv|s390x?|se|do|se_compat|do_compat)_|SyS_|compat_)?(?:sys_)?"
)
SYSCALL_PREFIXES = ("__x64_sys_", "__arm64_sys_", "__riscv_sys_", "__s390x_sys_", "__se_sys_", "sys_")
"""Prefixes of the names of functions that implement system calls."""


def is_function(name: str) -> bool:
    """Returns whether a kernel or a module has a function of that name.

    For ``name.isra.0`` that is ``name``.
    """
    base = name.partition(".")[0]
    return (
        _has("functions", base)
        or _has("modules", base)
        or base in _OTHERS.split()
        or ("sys_" in base.lower() and is_syscall(_SYSCALL.sub("", base)))
        or _in_catalogue(base)
    )


def is_syscall(name: str) -> bool:
    """Returns whether there is a system call of that name."""
    return any(
        _has("functions", f"{prefix}{name}") or _in_catalogue(f"{prefix}{name}")
        for prefix in SYSCALL_PREFIXES
    )


def is_tracepoint(name: str) -> bool:
    """Returns whether there is a tracepoint ``category/event``; for a module, only the event is known."""
    event = name.rpartition("/")[2]
    return _has("tracepoints", name) or (
        not _matches("tracepoints", f"*/{event}") and (_has("raw_tracepoints", event) or _is_own(name))
    )


def _is_own(name: str) -> bool:
    """Returns whether a kernel of the catalogue has the tracepoint; each system call has two."""
    category, _, event = name.partition("/")
    if category == "syscalls":
        return is_syscall(event.removeprefix("sys_enter_").removeprefix("sys_exit_"))
    return _in_catalogue(f"btf_trace_{event}")


def is_raw_tracepoint(name: str) -> bool:
    """Returns whether there is a tracepoint of that name."""
    return _has("raw_tracepoints", name) or _in_catalogue(f"btf_trace_{name}")


def is_recorded_tracepoint(name: str) -> bool:
    """Returns whether a recorded kernel has a tracepoint of that name; the catalogue is not searched."""
    return _has("raw_tracepoints", name)


def is_lsm_hook(name: str) -> bool:
    """Returns whether there is an LSM hook of that name."""
    return _has("functions", f"bpf_lsm_{name}") or _in_catalogue(f"bpf_lsm_{name}")


def is_iterator(name: str) -> bool:
    """Returns whether there is an iterator over such objects."""
    return _has("iterators", name) or _in_catalogue(f"bpf_iter__{name}")  # the type of its context


def is_helper(name: str) -> bool:
    """Returns whether there is a helper ``bpf_…`` of that name."""
    return is_recorded_helper(name) or _in_catalogue(f"BPF_FUNC_{name.removeprefix('bpf_')}")


def is_recorded_helper(name: str) -> bool:
    """Returns whether a recorded kernel has a helper of that name; the catalogue is not searched."""
    return _has("helpers", name.removeprefix("bpf_"))


def is_option(name: str) -> bool:
    """Returns whether there is an option of that name, without ``CONFIG_``."""
    return _has("options", name)


def fits_function(pattern: str) -> bool:
    """Returns whether a pattern with ``*`` and ``?`` fits a function of a kernel or a module."""
    return _matches("functions", pattern) or _matches("modules", pattern)


def module_of(function: str) -> str | None:
    """Returns the module that has a function, or ``tracepoint:NAME``; None if no module has it."""
    line = _line(_FOLDER / "modules.txt", function)
    return None if line is None else line.partition(" ")[2].replace("-", "_")


def closest_name(what: str, name: str, others: Iterable[str] = ()) -> str:
    """Returns a sentence with the closest names, of those recorded as `what` and of `others`."""
    return tell_closest(name, [*_recorded(what).near(name), *others])


def is_close_to_option(name: str) -> bool:
    """Returns whether the name is nearly the name of an option."""
    from difflib import get_close_matches

    return bool(get_close_matches(name, _recorded("options").near(name), n=1, cutoff=0.85))


def names(what: str) -> list[str]:
    """Returns all names that are recorded as ``functions``, ``tracepoints``, ``helpers`` …"""
    return _text(what).decode().split()


def helpers() -> list[str]:
    """Returns the recorded helpers."""
    return [f"bpf_{id}" for id in names("helpers")]


def syscalls() -> list[str]:
    """Returns the recorded system calls."""
    return [n.removeprefix("__x64_sys_") for n in _recorded("functions").starting("__x64_sys_")]


def lsm_hooks() -> list[str]:
    """Returns the recorded LSM hooks."""
    return [n.removeprefix("bpf_lsm_") for n in _recorded("functions").starting("bpf_lsm_")]


def _has(file: str, name: str) -> bool:
    return _line(_FOLDER / f"{file}.txt", name) is not None


def _line(path: Path, name: str) -> str | None:
    """Returns the line of a sorted file that begins with a word; None if there is none.

    It uses binary search in the file, because reading such a file takes a guest with Linux 5.10 two seconds.
    """
    wanted = name.encode()
    with path.open("rb", buffering=0) as file:
        low, high = 0, file.seek(0, os.SEEK_END)
        while low < high:
            middle = (low + high) // 2
            start = max(middle - _LONGEST, 0)
            around = os.pread(file.fileno(), 2 * _LONGEST, start)
            begin = around.rfind(b"\n", 0, middle - start) + 1
            line = around[begin : around.find(b"\n", begin)]
            found = line.partition(b" ")[0]
            if found == wanted:
                return line.decode()
            if found < wanted:
                low = start + begin + len(line) + 1
            else:
                high = start + begin
    return None


def _matches(file: str, pattern: str) -> bool:
    text = "".join({"*": r"[^\n ]*", "?": r"[^\n ]"}.get(c, re.escape(c)) for c in pattern)
    return re.search(b"^%b(?: .*)?$" % text.encode(), _text(file), re.MULTILINE) is not None


def _recorded(file: str) -> Names:
    return Names(_text(file))


@cache
def _text(file: str) -> bytes:
    """Returns the names of a file, one in each line, with a line end before the first one."""
    return b"\n" + (_FOLDER / f"{file}.txt").read_bytes()


def _in_catalogue(name: str) -> bool:
    return bool(kernels_with(name)) or _in_system_maps(name)


@cache
def _in_system_maps(name: str) -> bool:
    """Returns whether a System.map of the catalogue has such a function or tracepoint.

    In Debian's packages that file has a note in place of the symbols.
    """
    symbol = name.replace("btf_trace_", "__tracepoint_", 1)
    kinds = "tTwW" if symbol == name else "A-Za-z"
    wanted = re.compile(rf"^[0-9a-f]+ [{kinds}] {re.escape(symbol)}$".encode(), re.MULTILINE)
    return any(wanted.search(path.read_bytes()) for path in kernels_dir().glob("*/boot/System.map-*"))


@cache
def kernels_with(name: str) -> tuple[str, ...]:
    """Returns the kernels of the catalogue whose BTF has a name, with ``6.1`` before others."""
    wanted = b"\0%b\0" % name.encode()
    found = (path.parent.name for path in kernels_dir().glob("*/btf") if wanted in _strings_of(path))
    return tuple(sorted(found, key=lambda kernel: (kernel != "6.1", kernel)))


def _strings_of(btf: Path) -> bytes:
    """Returns the string section of a file of BTF: in a guest, each megabyte takes long to read."""
    with btf.open("rb") as file:  # buffered: a raw read may give less than the rest
        head = file.read(_BTF_HEADER.size)
        if len(head) < _BTF_HEADER.size or not head.startswith(_BTF_MAGIC):
            return head + file.read()  # of the other byte order, or damaged
        header, _, _, start, size = _BTF_HEADER.unpack(head)
        file.seek(header + start)
        return file.read(size)
