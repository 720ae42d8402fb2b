"""Names that programs attach to: kernel functions, tracepoints, security modules. Read on demand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import translate
from functools import cache
from pathlib import Path

from ..errors import closest
from ..libbpf import ffi, lib, to_str
from ..libbpf.syscalls import lsm_list_modules
from .tracefs import tracefs

_LSM_LIST = Path("/sys/kernel/security/lsm")
_LSM_ID_BPF = 109
_FUNC, _TYPEDEF = 12, 8  # BTF kinds
# by kind of section: what a target's name has in front in BTF, as which kind, what it is
_TYPED = {
    "tp_btf": ("btf_trace_", _TYPEDEF, "tracepoint"),
    "iter": ("bpf_iter_", _FUNC, "iterator"),
    "lsm": ("bpf_lsm_", _FUNC, "LSM hook"),
}
_FUNCTIONS = ("", _FUNC, "function")
_MOST_COMPARED = 3000


def functions() -> Counter[str]:
    """How often each name is in /proc/kallsyms; static functions of several files can share one.

    Linux 7.2 lists data under the letters of functions: what is in the kernel itself has to be in its text.
    Functions that ran only while it booted are left out with that.
    """
    return _functions(loaded_modules())


def loaded_modules() -> str:
    """The names of the modules that are loaded now: what was read when there were others may be old."""
    try:
        with open("/proc/modules") as file:
            return " ".join(line.partition(" ")[0] for line in file)
    except OSError:  # a kernel without modules
        return ""


@cache
def _functions(_modules: str) -> Counter[str]:
    with open("/proc/kallsyms") as file:
        lines = [line for line in file if line[17] in "tTwW"]
    begin, end = (next((x[:16] for x in lines if x[19:] == f"{name}\n"), "") for name in ("_stext", "_etext"))
    hidden = begin in ("", "0" * 16)
    return Counter(
        line[19:].split(maxsplit=1)[0]
        for line in lines
        if hidden or begin <= line[:16] < end or line.endswith("]\n")
    )


def traceable_functions() -> frozenset[str] | None:
    """The functions that ftrace can trace; None where tracefs does not say."""
    return _traceable(loaded_modules())


@cache
def _traceable(_modules: str) -> frozenset[str] | None:
    root = tracefs()
    try:
        lines = (root / "available_filter_functions").read_text() if root else ""
    except OSError:
        return None
    return frozenset(line.split()[0] for line in lines.splitlines() if line) or None


def functions_like(pattern: str) -> list[str]:
    """Functions that can be traced and fit a pattern with ``*`` and ``?``, sorted."""
    known = traceable_functions() or frozenset(functions())
    if pattern in known:
        return [pattern]
    fits = re.compile(translate(pattern)).match
    return sorted(name for name in known if fits(name))


def raw_tracepoints() -> frozenset[str]:
    """Names of the tracepoints, as a raw tracepoint takes them."""
    return typed_targets("tp_btf")


def typed_targets(kind: str) -> frozenset[str]:
    """What programs of a kind of section can be loaded for, by the kernel's BTF."""
    prefix, btf_kind, _ = _TYPED.get(kind, _FUNCTIONS)
    return frozenset(n.removeprefix(prefix) for n in type_names(btf_kind) if n.startswith(prefix))


def explain_no_type(kind: str, name: str) -> tuple[str, str]:
    """Why a program of a kind of section can't be loaded for a name that BTF lacks, and what to do."""
    what = _TYPED.get(kind, _FUNCTIONS)[2]
    known = typed_targets(kind)
    inlined = ", or it is inlined everywhere" if what == "function" else ""
    return f"this kernel has no {what} {name!r}{inlined}", closest(name, likely(name, known) or known)


def type_names(kind: int) -> Iterator[str]:
    """Names of all types of a BTF kind that the kernel has; none where it has no BTF."""
    btf = lib.btf__load_vmlinux_btf()
    if btf == ffi.NULL:
        return
    try:
        for number in range(1, lib.btf__type_cnt(btf)):
            name, info = ffi.cast("uint32_t *", lib.btf__type_by_id(btf, number))[0:2]
            if info >> 24 & 0x1F == kind:
                yield to_str(lib.btf__name_by_offset(btf, name))
    finally:
        lib.btf__free(btf)


def tracepoint_names(category: str) -> list[str]:
    """The tracepoints of a category, ``syscalls`` for one; the categories when there is none of that name."""
    root = tracefs()
    if root is None:
        return []
    folder = root / "events" / category
    return sorted(p.name for p in (folder if folder.is_dir() else folder.parent).iterdir() if p.is_dir())


def likely(name: str, known: Iterable[str]) -> list[str]:
    """Names that are worth comparing with a wrong one: comparing it with all of them takes seconds."""
    words = {word for word in name.lower().split("_") if len(word) > 2}
    start = name[:4].lower()
    found = {k for k in known if k.lower().startswith(start) or not words.isdisjoint(k.lower().split("_"))}
    return sorted(found, key=lambda k: abs(len(k) - len(name)))[:_MOST_COMPARED]


def bpf_lsm_active() -> bool | None:
    """Whether LSM programs run: ``bpf`` is in the list of active modules. None when nothing tells."""
    try:
        return "bpf" in _LSM_LIST.read_text().strip().split(",")
    except OSError:
        pass  # securityfs is not mounted
    try:
        return _LSM_ID_BPF in lsm_list_modules()
    except OSError:
        return None
