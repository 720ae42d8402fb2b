"""Reads the names that programs attach to: kernel functions, tracepoints, security modules."""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import cache, lru_cache
from pathlib import Path

from pytest_bpfmaps.elf.name_search import Names, is_close, tell_closest
from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.kallsyms import kernel_symbols
from pytest_bpfmaps.kernel.known_names import SYSCALL_PREFIXES
from pytest_bpfmaps.kernel.symbol_changes import loaded_modules
from pytest_bpfmaps.kernel.tracefs import tracefs
from pytest_bpfmaps.kernel.vmlinux_btf import (
    FUNC,
    STRUCT,
    TYPEDEF,
    has_type,
    modules_have_types,
    names_in_modules,
    type_names,
)
from pytest_bpfmaps.libbpf.syscalls import lsm_list_modules

_LSM_LIST = Path("/sys/kernel/security/lsm")
_LSM_ID_BPF = 109
# kind of section: (prefix of the target's name in BTF, its BTF kind, what it is)
_TYPED = {
    "tp_btf": ("btf_trace_", TYPEDEF, "tracepoint"),
    "iter": ("bpf_iter_", FUNC, "iterator"),
    "lsm": ("bpf_lsm_", FUNC, "LSM hook"),
}
_FUNCTIONS = ("", FUNC, "function")
_SYSCALL = re.compile(r"sys_(enter|exit)_\w+")
_MOST_LIKE = 400  # symbols that are compared with a name
_DIGITS = 16  # of an address


class Functions(Names):
    """The functions in /proc/kallsyms; static functions of several files can share a name.

    Linux 7.2 lists data with the letters of functions. So a symbol of the kernel itself counts only if its
    address is in the kernel's text. This also leaves out functions that only ran during boot.
    """

    def __init__(self, text: bytes) -> None:
        super().__init__(text, b" ", "cat /proc/kallsyms")
        self._begin, self._end = (self._line_of(name)[:_DIGITS] for name in (b"_stext", b"_etext"))
        self.hidden = self._begin in (b"", b"0" * _DIGITS)

    @property
    def text_range(self) -> tuple[bytes, bytes]:
        """The first address of the kernel's text and the first one after it, as listed; empty if hidden."""
        return (b"", b"") if self.hidden else (self._begin, self._end)

    def places(self, name: str) -> list[tuple[str, int]]:
        """Returns (owner, address) of each function of that name; an owner is ``vmlinux`` or a module.

        The address is 0 where the kernel hides it.
        """
        found = []
        for place in self._places(name):
            line = self._text[place - _DIGITS - 3 : self._text.find(b"\n", place)]
            owner = line.partition(b"\t[")[2].rstrip(b"]").decode() or "vmlinux"
            found.append((owner, int(line[:_DIGITS], 16)))
        return found

    def owners(self, name: str) -> list[str]:
        """Returns the owner of each function of that name."""
        return [owner for owner, _ in self.places(name)]

    def _line_of(self, name: bytes) -> bytes:
        at = self._text.find(b" %b\n" % name)
        return b"" if at < 0 else self._text[self._text.rfind(b"\n", 0, at) + 1 : at]

    def _is_one(self, begin: int, end: int) -> bool:
        text = self._text
        if text[begin - 2 : begin - 1] not in (b"t", b"T", b"w", b"W"):
            return False
        of_module = text[end : end + 2] == b"\t["
        start = begin - _DIGITS - 3
        return of_module or self.hidden or self._begin <= text[start : start + _DIGITS] < self._end


def functions() -> Functions:
    """Returns the functions that the kernel and its modules have now."""
    return _functions(kernel_symbols().text)


@lru_cache(maxsize=1)
def _functions(text: bytes) -> Functions:
    return Functions(text)


def symbols() -> Names:
    """Returns all symbols that the kernel and its modules have now, including variables."""
    return Names(kernel_symbols().text, b" ")


def symbols_like(name: str) -> list[str]:
    """Returns the symbols that begin with the first letters of `name`.

    It takes the fewest letters, three or more, with which at most 400 symbols begin.
    """
    known, text = symbols(), kernel_symbols().text
    lengths = range(3, len(name))
    fits = bisect_left(lengths, True, key=lambda n: text.count(b" %b" % name[:n].encode()) <= _MOST_LIKE)
    return known.starting(name[: lengths[fits]]) if fits < len(lengths) else []


def traceable_functions() -> Names | None:
    """Returns the functions that ftrace can trace; None if tracefs does not list them."""
    return _traceable(loaded_modules())


@cache
def _traceable(_modules: object) -> Names | None:
    root = tracefs()
    try:
        text = (root / "available_filter_functions").read_bytes() if root else b""
    except OSError:
        return None
    return Names(b"\n" + text, shown_by=f"cat {root}/available_filter_functions") if text.strip() else None


def functions_like(pattern: str) -> list[str]:
    """Returns the functions that can be traced and fit a pattern with ``*`` and ``?``, sorted."""
    return (traceable_functions() or functions()).fitting(pattern)


def explain_no_type(kind: str, name: str) -> Explanation:
    """Explains that a program of a kind of section can't be loaded for a name that BTF lacks."""
    if kind == "tp_btf" and (call := _SYSCALL.fullmatch(name)):
        return Explanation(
            f'{name!r} is a tracepoint only for SEC("tracepoint"): raw tracepoints and tp_btf have one '
            f"tracepoint for all system calls, sys_{call[1]}",
            f'use SEC("tracepoint/syscalls/{name}"); or SEC("tp_btf/sys_{call[1]}"), and compare the number',
        )
    return _no_type(*_TYPED.get(kind, _FUNCTIONS), name, loaded_modules())


@cache
def _no_type(prefix: str, btf_kind: int, what: str, name: str, _modules: object) -> Explanation:
    known = type_names(btf_kind) or functions()
    if what == "function" and (call := _of_system_call(name)):
        return call
    near = known.near(name, prefix)
    if what == "iterator":  # kernel functions such as bpf_iter_task_new() have no context
        near = [each for each in near if has_type(f"bpf_iter__{each}", STRUCT)]
    if what == "function" and modules_have_types() and not is_close(name, near):
        near += names_in_modules(name)
    return Explanation(_there_is_no(what, name), tell_closest(name, near, known.shown_by))


def explain_absent_function(name: str) -> Explanation | None:
    """Does what `explain_no_function` does, with the kernel's types only; None when they are not enough."""
    if call := _of_system_call(name):
        return call
    near = type_names(FUNC).near(name)
    if not is_close(name, near) and loaded_modules():
        if not modules_have_types():
            return None
        near += names_in_modules(name)
    if not near:
        return None
    return Explanation(_there_is_no("function", name), tell_closest(name, near, "cat /proc/kallsyms"))


def _of_system_call(name: str) -> Explanation | None:
    """Explains that ``sys_clone`` has a prefix in this kernel, ``__x64_sys_clone``; None for other names."""
    call = re.fullmatch(r"(?:sys|SyS)_(\w+)", name)
    if call is None:
        return None
    known = type_names(FUNC)
    here = [f"{prefix}{call[1]}" for prefix in SYSCALL_PREFIXES if f"{prefix}{call[1]}" in known]
    if not here:
        return None
    return Explanation(
        f"this kernel has no function {name!r}: the function of that system call is {here[0]!r}",
        f"write {here[0]}, whose only parameter is a struct pt_regs with the arguments; or "
        f'SEC("ksyscall/{call[1]}") and BPF_KSYSCALL(prog, …), which gives the arguments themselves',
    )


def explain_no_function(name: str) -> Explanation:
    """Explains that a kprobe finds no function of that name."""
    return Explanation(_there_is_no("function", name), functions().closest(name))


def _there_is_no(what: str, name: str) -> str:
    inlined = ", or it is inlined everywhere" if what == "function" else ""
    return f"this kernel has no {what} {name!r}{inlined}"


def tracepoint_names(category: str) -> list[str]:
    """Returns the tracepoints of a category, such as ``syscalls``, sorted.

    If there is no such category, returns all categories. Returns an empty list without tracefs.
    """
    root = tracefs()
    if root is None:
        return []
    folder = root / "events" / category
    return sorted(p.name for p in (folder if folder.is_dir() else folder.parent).iterdir() if p.is_dir())


def bpf_lsm_active() -> bool | None:
    """Returns whether LSM programs run: ``bpf`` is in the list of active modules. None if that is unknown."""
    try:
        return "bpf" in _LSM_LIST.read_text().strip().split(",")
    except OSError:
        pass  # securityfs is not mounted
    try:
        return _LSM_ID_BPF in lsm_list_modules()
    except OSError:
        return None
