"""Attaching to functions of programs and libraries: uprobes, one or many at once, and USDT."""

from __future__ import annotations

import errno
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import AttachError, closest
from ..kernel.binaries import find_binary, function_names, function_offsets, mapped_files, usdt_names
from ..libbpf import ffi, lib, opts
from ..libbpf.syscalls import address, bpf, pack
from ..links import FdLink
from .kprobes import check_cookies, returns

Target = dict[str, Any]

_LINK_CREATE = 28  # enum bpf_cmd
_TRACE_UPROBE_MULTI, _TRACE_UPROBE_SESSION = 48, 57  # enum bpf_attach_type
_RETURN = 1  # BPF_F_UPROBE_MULTI_RETURN


def to_uprobe(handle: Any, target: Target, on: str) -> Any:
    binary = binary_of(target, on)
    function = target.get("function")
    c_name = ffi.new("char[]", function.encode()) if function else ffi.NULL
    settings = opts(
        "bpf_uprobe_opts",
        retprobe=returns(handle, target),
        func_name=c_name,
        bpf_cookie=target.get("cookie", 0),
    )
    return lib.bpf_program__attach_uprobe_opts(
        handle, process_id(target.get("pid")), os.fsencode(binary), target.get("offset", 0), settings
    )


def to_uprobe_multi(handle: Any, target: Target, on: str) -> Any:
    """Many functions of a binary with one link (Linux 6.6, commit 89ae89f53d20); sessions Linux 6.13."""
    binary = binary_of(target, on)
    offsets = _offsets(binary, target["functions"], on)
    cookies = check_cookies(target.get("cookies"), len(offsets), on)
    attach_type = lib.bpf_program__expected_attach_type(handle)
    if attach_type != _TRACE_UPROBE_SESSION:
        attach_type = _TRACE_UPROBE_MULTI
    path = ffi.new("char[]", os.fsencode(binary))
    places = ffi.new("unsigned long[]", offsets)
    numbers = ffi.new("uint64_t[]", cookies) if cookies else ffi.NULL
    attributes = pack(
        ("I", lib.bpf_program__fd(handle)),
        ("I", 0),
        ("I", attach_type),
        ("I", 0),
        ("Q", address(path)),
        ("Q", address(places)),
        ("Q", 0),
        ("Q", address(numbers)),
        ("I", len(offsets)),
        ("I", _RETURN if returns(handle, target) else 0),
        ("I", max(process_id(target.get("pid")), 0)),
        ("I", 0),
    )
    return FdLink(bpf(_LINK_CREATE, attributes), on)


def to_usdt(handle: Any, target: Target, on: str) -> Any:
    provider, _, name = target["usdt"].partition(":")
    binary = binary_of(target, on)
    settings = opts("bpf_usdt_opts", usdt_cookie=target.get("cookie", 0))
    return lib.bpf_program__attach_usdt(
        handle, process_id(target.get("pid")), os.fsencode(binary), provider.encode(), name.encode(), settings
    )


def binary_of(target: Target, on: str) -> Path:
    """The file that the target names. Raises `AttachError` when there is none."""
    found = find_binary(target["binary"])
    if found is None:
        raise AttachError(
            f"cannot attach {on}",
            on=f"to binary={str(target['binary'])!r}",
            why="there is no such file, and no library of that name is loaded here"
            if "/" not in os.fspath(target["binary"])
            else "there is no such file",
            fix=_like(target["binary"]),
            errno=errno.ENOENT,
        )
    return found


def _like(binary: str | os.PathLike[str]) -> str:
    """Libraries with names like that, and for a path what is in its folder."""
    path = Path(binary)
    beside = [p.name for p in path.parent.iterdir()] if "/" in str(binary) and path.parent.is_dir() else []
    near = get_close_matches(path.name, {*(p.name for p in mapped_files()), *beside}, n=3, cutoff=0.7)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return "give the path of a program or library, or the name of one that is loaded here: 'libc'"


def explain_missing(target: Target, number: int) -> tuple[str, str | None] | None:
    """What of the target is not there: a function or a USDT in a binary."""
    binary = find_binary(target["binary"])
    if binary is None:
        return None
    if "usdt" in target:
        known = usdt_names(binary)
        if target["usdt"] not in known:
            return f"{binary} has no USDT {target['usdt']!r}", closest(target["usdt"], known)
    elif target.get("function") and target["function"] not in (names := function_names(binary)):
        if not names:
            return f"{binary} has no symbols", "give a file offset: attach(binary=…, offset=…)"
        return f"{binary} has no function {target['function']!r}", closest(target["function"], names)
    elif number == errno.ESRCH and "pid" in target:
        return f"there is no process {target['pid']}", None
    return None


def _offsets(binary: Path, functions: Any, on: str) -> list[int]:
    names = [functions] if isinstance(functions, str) else list(functions)
    found: list[int] = []
    for name in names:
        try:
            offsets = function_offsets(binary, name)
        except ValueError as e:
            raise AttachError(f"cannot attach {on}", why=str(e), errno=errno.ENOEXEC) from None
        if not offsets:
            raise AttachError(
                f"cannot attach {on}",
                on=f"to binary={str(binary)!r}, functions={name!r}",
                why="it has no such function",
                fix=closest(name, function_names(binary)),
                errno=errno.ENOENT,
            )
        found += offsets.values()
    return found


def process_id(process: Any) -> int:
    """Of a number, or of what has one, a `subprocess.Popen`; -1 for None, which is every process."""
    return -1 if process is None else int(getattr(process, "pid", process))
