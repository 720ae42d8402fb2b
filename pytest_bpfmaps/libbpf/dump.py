"""BTF as C: what ``bpftool btf dump file … format c`` prints, without bpftool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import CompileError
from .calls import check, check_pointer
from .library import ffi, lib

_HEAD = """\
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
#endif

"""
_TAIL = """\
#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif

#endif /* __VMLINUX_H__ */
"""
_FIX = "name a raw BTF file (magic eb9f), as the kernel shows it at /sys/kernel/btf/vmlinux"


def dump_header(btf_path: str | os.PathLike[str], target: Path) -> None:
    """Writes all types of the raw BTF at `btf_path` to the C header `target`.

    Structs carry ``preserve_access_index`` (CO-RE) unless ``BPF_NO_PRESERVE_ACCESS_INDEX`` is defined. Raises
    `CompileError` when the BTF is not valid, `OSError` when `target` cannot be written.
    """
    on = os.fspath(btf_path)
    with _parsed(on) as btf, target.open("w+b", buffering=0) as file:
        file.write(_HEAD.encode())
        with _dumper(btf, file.fileno(), on) as dumper:
            for type_id in range(1, lib.btf__type_cnt(btf)):
                check(
                    lib.btf_dump__dump_type(dumper, type_id),
                    CompileError,
                    "cannot print BTF as C",
                    on=on,
                    fix=_FIX,
                )
        file.write(_TAIL.encode())


@contextmanager
def _parsed(path: str) -> Iterator[Any]:
    btf = lib.btf__parse_raw(os.fsencode(path))
    check_pointer(btf, CompileError, "cannot read BTF", on=path, fix=_FIX)
    try:
        yield btf
    finally:
        lib.btf__free(btf)


@contextmanager
def _dumper(btf: Any, descriptor: int, on: str) -> Iterator[Any]:
    # btf_dump prints a header in a million pieces. Its callback has the type of libc's own vdprintf(), so no
    # piece comes through Python.
    libc = ffi.dlopen(None)
    vdprintf = ffi.cast("btf_dump_printf_fn_t", ffi.addressof(libc, "vdprintf"))
    dumper = lib.btf_dump__new(btf, vdprintf, ffi.cast("void *", descriptor), ffi.NULL)
    check_pointer(dumper, CompileError, "cannot print BTF as C", on=on)
    try:
        yield dumper
    finally:
        lib.btf_dump__free(dumper)
