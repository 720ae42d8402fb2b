"""Attaches to functions of the kernel by kprobes: to one function, or to many with one link."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.attach.links import FdLink
from pytest_bpfmaps.attach.section_targets import is_return
from pytest_bpfmaps.errors import AttachError
from pytest_bpfmaps.kernel.attach_names import functions, functions_like, traceable_functions
from pytest_bpfmaps.kernel.unloaded_modules import explain_unloaded
from pytest_bpfmaps.libbpf import ffi, lib, opts, to_str
from pytest_bpfmaps.libbpf.syscalls import BPF_LINK_CREATE, address, bpf, pack

_TRACE_KPROBE_MULTI, _TRACE_KPROBE_SESSION = 42, 56  # enum bpf_attach_type
_RETURN = 1  # BPF_F_KPROBE_MULTI_RETURN


def returns(handle: Any, target: Target) -> bool:
    """Whether the program runs when its function returns; without `retprobe` its section decides."""
    wanted = target.get("retprobe")
    return is_return(to_str(lib.bpf_program__section_name(handle))) if wanted is None else bool(wanted)


def to_kprobe(handle: Any, target: Target, on: str) -> Any:
    settings = opts(
        "bpf_kprobe_opts",
        retprobe=returns(handle, target),
        offset=target.get("offset", 0),
        bpf_cookie=target.get("cookie", 0),
    )
    return lib.bpf_program__attach_kprobe_opts(handle, target["function"].encode(), settings)


def to_syscall(handle: Any, target: Target, on: str) -> Any:
    settings = opts("bpf_ksyscall_opts", retprobe=returns(handle, target), bpf_cookie=target.get("cookie", 0))
    return lib.bpf_program__attach_ksyscall(handle, target["syscall"].encode(), settings)


def to_kprobe_multi(handle: Any, target: Target, on: str) -> Any:
    """Attaches to many functions with one link (Linux 5.18, commit 0dcac2725406); sessions: Linux 6.10."""
    names = _names(target["functions"], on)
    cookies = check_cookies(target.get("cookies"), len(names), on)
    attach_type = lib.bpf_program__expected_attach_type(handle)
    if attach_type != _TRACE_KPROBE_SESSION:
        attach_type = _TRACE_KPROBE_MULTI
    texts = [ffi.new("char[]", name.encode()) for name in names]
    symbols = ffi.new("char *[]", texts)
    numbers = ffi.new("uint64_t[]", cookies) if cookies else ffi.NULL
    attributes = pack(
        ("I", lib.bpf_program__fd(handle)),
        ("I", 0),
        ("I", attach_type),
        ("I", 0),
        ("I", _RETURN if returns(handle, target) else 0),
        ("I", len(names)),
        ("Q", address(symbols)),
        ("Q", 0),
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


def _names(wanted: Any, on: str) -> list[str]:
    if not isinstance(wanted, str):
        return [str(name) for name in wanted]
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
