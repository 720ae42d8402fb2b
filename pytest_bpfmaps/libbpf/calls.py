"""Turns libbpf's return codes and NULLs into exceptions."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.errors import BpfError, strerror
from pytest_bpfmaps.libbpf.library import ffi, lib


def check(result: int, error: type[BpfError], what: str, **parts: Any) -> int:
    """Returns `result` if it is not negative; otherwise raises `error`, with the reason from the code."""
    if result >= 0:
        return result
    raise failure(-result, error, what, **parts)


def check_pointer(pointer: Any, error: type[BpfError], what: str, **parts: Any) -> Any:
    """Returns `pointer` if it is not NULL; otherwise raises `error`, with the reason from errno."""
    number = ffi.errno  # this is read first, because any other call may change it
    if pointer != ffi.NULL:
        return pointer
    raise failure(number, error, what, **parts)


def failure(number: int, error: type[BpfError], what: str, **parts: Any) -> BpfError:
    """Returns the exception for a positive error number."""
    parts.setdefault("why", reason(number))
    return error(what, errno=as_errno(number), **parts)


def as_errno(number: int) -> int:
    """Returns the errno for a code; libbpf's own codes all mean that the object is at fault."""
    return errno.ENOEXEC if number >= 4000 else number


def reason(number: int) -> str:
    """Returns the text for an errno, or for one of libbpf's own codes (4000 and up)."""
    if number < 4000:
        return strerror(number)
    text = ffi.new("char[]", 256)
    lib.libbpf_strerror(number, text, 256)
    return str(ffi.string(text).decode())


def opts(struct: str, **fields: Any) -> Any:
    """Returns a libbpf ``*_opts`` struct with its `sz` set; the caller keeps pointers in `fields` alive."""
    made = ffi.new(f"struct {struct} *")
    made.sz = ffi.sizeof(f"struct {struct}")
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def to_str(pointer: Any) -> str:
    """Returns a C string as `str`; the empty string for NULL."""
    return "" if pointer == ffi.NULL else str(ffi.string(pointer).decode(errors="replace"))


def walk(step: Any, handle: Any) -> list[Any]:
    """Returns all maps or programs of an object; `step` is a function such as ``bpf_object__next_map``."""
    found = []
    at = step(handle, ffi.NULL)
    while at != ffi.NULL:
        found.append(at)
        at = step(handle, at)
    return found
