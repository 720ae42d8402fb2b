"""Prints BTF as C, as ``bpftool btf dump file … format c`` does, without bpftool."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from pytest_bpfmaps.errors import CompileError
from pytest_bpfmaps.libbpf.calls import check, check_pointer
from pytest_bpfmaps.libbpf.library import ffi, lib

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
_STDIO = """
typedef ... FILE;
FILE *fopen(const char *path, const char *mode);
int fputs(const char *text, FILE *stream);
int vfprintf(FILE *stream, const char *format, void *arguments);
int fflush(FILE *stream);
int ferror(FILE *stream);
int fclose(FILE *stream);
"""
_PRINT = "cannot print BTF as C"
_FIX = "name a raw BTF file (magic eb9f), as the kernel shows it at /sys/kernel/btf/vmlinux"


def dump_header(btf_path: str | os.PathLike[str], target: Path) -> None:
    """Writes all types of the raw BTF at `btf_path` to the C header `target`.

    Structs have ``preserve_access_index`` (CO-RE) unless ``BPF_NO_PRESERVE_ACCESS_INDEX`` is defined. Raises
    `CompileError` if the BTF is not valid, and `OSError` if `target` can't be written.
    """
    on = os.fspath(btf_path)
    with _parsed(on) as btf, _Stream(target) as stream:
        stream.write(_HEAD)
        with _dumper(btf, stream, on) as dumper:
            for type_id in range(1, lib.btf__type_cnt(btf)):
                check(lib.btf_dump__dump_type(dumper, type_id), CompileError, _PRINT, on=on, fix=_FIX)
        stream.write(_TAIL)


@contextmanager
def _parsed(path: str) -> Iterator[Any]:
    btf = lib.btf__parse_raw(os.fsencode(path))
    check_pointer(btf, CompileError, "cannot read BTF", on=path, fix=_FIX)
    try:
        yield btf
    finally:
        lib.btf__free(btf)


@contextmanager
def _dumper(btf: Any, stream: _Stream, on: str) -> Iterator[Any]:
    dumper = lib.btf_dump__new(btf, stream.printf, stream.file, ffi.NULL)
    check_pointer(dumper, CompileError, _PRINT, on=on)
    try:
        yield dumper
    finally:
        lib.btf_dump__free(dumper)


class _Stream:
    """A C ``FILE *``, closed at the end of its ``with`` block, which raises `OSError` if any write failed.

    btf_dump prints a header in a million pieces. Its callback has the type of libc's ``vfprintf()``, which is
    used directly, so that no piece goes through Python.
    """

    def __init__(self, path: Path) -> None:
        from cffi import FFI

        self._ffi = cast(Any, FFI())
        self._ffi.cdef(_STDIO)
        self._libc: Any = self._ffi.dlopen(None)
        self._path = path
        self.printf = ffi.cast(
            "btf_dump_printf_fn_t", self._address(self._ffi.addressof(self._libc, "vfprintf"))
        )

    def __enter__(self) -> _Stream:
        self._handle = self._libc.fopen(os.fsencode(self._path), b"w")
        if self._handle == self._ffi.NULL:
            raise self._error()
        self.file = ffi.cast("void *", self._address(self._handle))
        return self

    def write(self, text: str) -> None:
        """Writes text; an error shows when the stream is closed."""
        self._libc.fputs(text.encode(), self._handle)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        failed = self._libc.fflush(self._handle) or self._libc.ferror(self._handle)
        reason = self._error()
        self._libc.fclose(self._handle)
        if failed and error is None:
            raise reason

    def _address(self, pointer: Any) -> int:
        return int(self._ffi.cast("uintptr_t", pointer))

    def _error(self) -> OSError:
        number = self._ffi.errno or errno.EIO
        return OSError(number, os.strerror(number), os.fspath(self._path))
