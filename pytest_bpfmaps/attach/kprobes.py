"""Attaches to functions of the kernel by kprobes: to one function, or to many with one link."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.attach.links import FdLink
from pytest_bpfmaps.attach.section_targets import is_return
from pytest_bpfmaps.errors import AttachError
from pytest_bpfmaps.kernel.attach_names import (
    functions,
    functions_like,
    traceable_functions,
)
from pytest_bpfmaps.kernel.duplicate_symbols import (
    explain_kprobe,
    explain_not_there,
    explain_same_name,
    place_of_owner,
    traceable_places,
)
from pytest_bpfmaps.kernel.unloaded_modules import explain_unloaded
from pytest_bpfmaps.libbpf import ffi, lib, opts, to_str
from pytest_bpfmaps.libbpf.syscalls import BPF_LINK_CREATE, address, bpf, pack

_TRACE_KPROBE_MULTI, _TRACE_KPROBE_SESSION = 42, 56  # enum bpf_attach_type
_RETURN = 1  # BPF_F_KPROBE_MULTI_RETURN

NO_FUNCTIONS: dict[str, Any] = {
    "why": "the list of functions is empty",
    "fix": 'name one, or give a pattern: functions="tcp_*"',
    "errno": errno.EINVAL,
}
"""The parts of the error for an empty list of functions."""


def returns(handle: Any, target: Target) -> bool:
    """Returns whether the program runs when its function returns; without `retprobe` its section decides."""
    wanted = target.get("retprobe")
    return is_return(to_str(lib.bpf_program__section_name(handle))) if wanted is None else bool(wanted)


def to_kprobe(handle: Any, target: Target, on: str) -> Any:
    """Attaches to ``FUNCTION``, ``MODULE:FUNCTION``, or ``vmlinux:FUNCTION`` for the kernel itself."""
    symbol, offset = _place(target["function"], on)
    settings = opts(
        "bpf_kprobe_opts",
        retprobe=returns(handle, target),
        offset=offset + target.get("offset", 0),
        bpf_cookie=target.get("cookie", 0),
    )
    return lib.bpf_program__attach_kprobe_opts(handle, symbol.encode(), settings)


def to_syscall(handle: Any, target: Target, on: str) -> Any:
    settings = opts("bpf_ksyscall_opts", retprobe=returns(handle, target), bpf_cookie=target.get("cookie", 0))
    return lib.bpf_program__attach_ksyscall(handle, target["syscall"].encode(), settings)


def to_kprobe_multi(handle: Any, target: Target, on: str) -> Any:
    """Attaches to many functions with one link (Linux 5.18, commit 0dcac2725406); sessions: Linux 6.10."""
    names = _names(target["functions"], on)
    cookies = check_cookies(target.get("cookies"), len(names), on)
    places = _places(names, target, on)
    if places:
        cookies = [cookies[names.index(name)] for name, _ in places] if cookies else []
    attach_type = lib.bpf_program__expected_attach_type(handle)
    if attach_type != _TRACE_KPROBE_SESSION:
        attach_type = _TRACE_KPROBE_MULTI
    texts = [] if places else [ffi.new("char[]", name.encode()) for name in names]
    symbols = ffi.new("char *[]", texts) if texts else ffi.NULL
    addresses = ffi.new("unsigned long[]", [place for _, place in places]) if places else ffi.NULL
    numbers = ffi.new("uint64_t[]", cookies) if cookies else ffi.NULL
    attributes = pack(
        ("I", lib.bpf_program__fd(handle)),
        ("I", 0),
        ("I", attach_type),
        ("I", 0),
        ("I", _RETURN if returns(handle, target) else 0),
        ("I", len(places or names)),
        ("Q", address(symbols)),
        ("Q", address(addresses)),
        ("Q", address(numbers)),
    )
    return FdLink(bpf(BPF_LINK_CREATE, attributes), on)


def check_cookies(cookies: Any, count: int, on: str) -> list[int]:
    """Returns the cookies as a list: one for each of `count` functions, or none at all."""
    made = list(cookies or ())
    if made and len(made) != count:
        raise AttachError(
            f"cannot attach {on}",
            why=f"{len(made)} cookies for {count} functions",
            fix="give a cookie for each function, in the same order",
            errno=errno.EINVAL,
        )
    return made


def _place(name: str, on: str) -> tuple[str, int]:
    """Returns the symbol by which the kernel finds a function, and the function's offset in bytes from it."""
    explained = None if ":" in name else explain_kprobe(name)
    if ":" in name:
        try:
            return place_of_owner(name)
        except LookupError as e:
            explained = e.args[0]
    if explained is None:
        return name, 0
    why, fix = explained
    where = f"to function={name!r}"
    raise AttachError(f"cannot attach {on}", on=where, why=why, fix=fix, errno=errno.EADDRNOTAVAIL)


def _places(names: list[str], target: Target, on: str) -> list[tuple[str, int]]:
    """Returns the names with the address of each function, when several share a name; else nothing.

    The kernel attaches a name to only one of them. A pattern or a single name means all, as with libbpf.
    """
    if any(":" in name for name in names):
        return [(name, _address(name, on)) for name in names]
    known = traceable_functions() or functions()
    shared = [name for name in names if known.count(name) > 1]
    if not shared:
        return []
    if not isinstance(target["functions"], str):
        why, fix = explain_same_name(shared[0], known.count(shared[0]))
        raise AttachError(
            f"cannot attach {on}", on=f"to functions={names!r}", why=why, fix=fix, errno=errno.EADDRNOTAVAIL
        )
    return traceable_places(names)


def _address(name: str, on: str) -> int:
    """Returns the address of ``OWNER:FUNCTION``, or of a function whose name no other has."""
    _place(name, on)
    owner, _, function = name.rpartition(":")
    found = [at for each, at in functions().places(function) if at and owner in ("", each)]
    if not found:
        why = "there is no such function, or the kernel hides its address"
        raise AttachError(f"cannot attach {on}", on=f"to {name!r}", why=why, errno=errno.EADDRNOTAVAIL)
    return found[0]


def _names(wanted: Any, on: str) -> list[str]:
    if not isinstance(wanted, str):
        names = [str(name) for name in wanted]
        if not names:
            raise AttachError(f"cannot attach {on}", on="to functions=[]", **NO_FUNCTIONS)
        return names
    if ":" in wanted:
        return _names_of(wanted, on)
    found = functions_like(wanted)
    if not found:
        why, fix = explain_unloaded(wanted) or (
            "no kernel function that can be traced fits",
            (traceable_functions() or functions()).closest(wanted),
        )
        raise AttachError(
            f"cannot attach {on}",
            on=f"to functions={wanted!r}",
            why=why,
            fix=fix,
            errno=errno.ENOENT,
        )
    return found


def _names_of(wanted: str, on: str) -> list[str]:
    """Returns ``OWNER:FUNCTION`` for each function of one owner that fits a pattern."""
    owner, _, pattern = wanted.rpartition(":")
    found = [n for n in functions_like(pattern) if functions().owners(n).count(owner) == 1]
    if found:
        return [f"{owner}:{name}" for name in found]
    why, fix = explain_not_there(wanted)
    raise AttachError(
        f"cannot attach {on}", on=f"to functions={wanted!r}", why=why, fix=fix, errno=errno.ENOENT
    )
