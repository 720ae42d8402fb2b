"""Attaches to tracepoints, raw tracepoints, and targets that are fixed when a program is loaded."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.attach.links import FdLink
from pytest_bpfmaps.attach.module_functions import ATTACH_TYPES
from pytest_bpfmaps.attach.section_targets import kind
from pytest_bpfmaps.errors import AttachError, Explanation
from pytest_bpfmaps.kernel.attach_names import bpf_lsm_active
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.duplicate_symbols import explain_shared
from pytest_bpfmaps.kernel.same_named_tracepoints import explain_shared_tracepoint
from pytest_bpfmaps.libbpf import ffi, lib, opts
from pytest_bpfmaps.libbpf.syscalls import BPF_RAW_TRACEPOINT_OPEN, address, bpf, pack

_OF_FUNCTIONS = frozenset({"fentry", "fexit", "fmod_ret", "fsession"})
_TRACE_RAW_TP, _LSM_MAC = 23, 27  # enum bpf_attach_type
_shared: dict[str, Explanation | None] = {}


def to_tracepoint(handle: Any, target: Target, on: str) -> Any:
    settings = opts("bpf_tracepoint_opts", bpf_cookie=target.get("cookie", 0))
    category, event = target["category"].encode(), target["event"].encode()
    return lib.bpf_program__attach_tracepoint_opts(handle, category, event, settings)


def to_raw_tracepoint(handle: Any, target: Target, on: str) -> Any:
    """Attaches a raw tracepoint program. Raises `AttachError` if several tracepoints have the name."""
    if explained := explain_shared_tracepoint(target["tracepoint"]):
        raise _shared_name(on, explained)
    name = target["tracepoint"].encode()
    if target.get("cookie"):
        return _raw_tracepoint(handle, name, target["cookie"], on)
    return lib.bpf_program__attach_raw_tracepoint(handle, name)


def where_loaded(handle: Any, target: Target, on: str) -> Any:
    """Attaches a program to the target that it was loaded for (fentry, fexit, fmod_ret, LSM, tp_btf, …)."""
    attach_type = lib.bpf_program__expected_attach_type(handle)
    if lib.bpf_program__type(handle) == ProgramType.LSM and attach_type == _LSM_MAC:
        refuse_idle_lsm(on)
    cookie = target.get("cookie", 0)
    # bpf_program__attach() fails for sections that `module_functions` handles: their handler can't attach.
    if not cookie and attach_type not in ATTACH_TYPES.values():
        return lib.bpf_program__attach(handle)
    if attach_type == _TRACE_RAW_TP:  # libbpf's link_create would silently drop the cookie
        return _raw_tracepoint(handle, None, cookie, on)
    return lib.bpf_program__attach_trace_opts(handle, opts("bpf_trace_opts", cookie=cookie))


def to_program(handle: Any, target: Target, on: str) -> Any:
    """Attaches a freplace program in place of a function of another program."""
    name = target.get("function")
    c_name = ffi.new("char[]", name.encode()) if name else ffi.NULL
    return lib.bpf_program__attach_freplace(handle, target["target"].fd, c_name)


def refuse_idle_lsm(on: str) -> None:
    """Raises `AttachError` if this kernel would attach LSM programs, and never run them."""
    if bpf_lsm_active() is False:
        raise AttachError(
            f"cannot attach {on}",
            why="it would attach and never run: 'bpf' is not among the active security modules "
            "(/sys/kernel/security/lsm)",
            fix="boot with 'bpf' in the lsm= list of the kernel's command line, or run the test in a virtual "
            "machine: pytest --bpf-kernel=6.1",
            errno=errno.EOPNOTSUPP,
        )


def look_for_same_named(section: str) -> None:
    """Finds out whether other functions or tracepoints have the name that the section names.

    This reads files. The result is kept, so that `refuse_same_named` reads none: another program of the
    object may be attached by then, and count how often files are opened.
    """
    name = section.partition("/")[2]
    if name and kind(section) in _OF_FUNCTIONS:
        _shared[section] = explain_shared(name, kind(section))
    elif name and kind(section) == "tp_btf":
        _shared[section] = explain_shared_tracepoint(name)


def refuse_same_named(section: str, on: str) -> None:
    """Raises `AttachError` if other functions or tracepoints have the name that the section names, too.

    libbpf would take the kernel's own function, or that of the first module. If the kernel itself has
    several, the program would run at the first one in /proc/kallsyms. ``MODULE:FUNCTION`` names the owner.
    """
    if section not in _shared:
        look_for_same_named(section)
    if explained := _shared.get(section):
        raise _shared_name(on, explained)


def _shared_name(on: str, explained: Explanation) -> AttachError:
    why, fix = explained
    return AttachError(f"cannot attach {on}", why=why, fix=fix, errno=errno.EADDRNOTAVAIL)


def _raw_tracepoint(handle: Any, name: bytes | None, cookie: int, on: str) -> Any:
    """Attaches with a cookie (Linux 6.10, commit 68ca5d4eebb8).

    libbpf has a function for this only from 1.4 on, so this calls the kernel itself.
    """
    c_name = ffi.new("char[]", name) if name else ffi.NULL
    fd = lib.bpf_program__fd(handle)
    attributes = pack(("Q", address(c_name)), ("I", fd), ("I", 0), ("Q", cookie))
    return FdLink(bpf(BPF_RAW_TRACEPOINT_OPEN, attributes), on)
