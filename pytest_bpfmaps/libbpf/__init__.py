"""Calls libbpf through cffi; no other room calls C.

`lib` opens ``libbpf.so.1`` on first use; its errors name functions that it lacks. `ffi` makes buffers and
structs. `check` and `check_pointer` turn return codes into exceptions. `capture_log` collects what libbpf
prints. libbpf 1.1 to 1.7 are supported. The declarations are in ``decl/``, one file for each header.
"""

from __future__ import annotations

from pytest_bpfmaps.libbpf.calls import check, check_pointer, opts, to_str
from pytest_bpfmaps.libbpf.library import ffi, lib, version
from pytest_bpfmaps.libbpf.log import LogCapture, capture_log

__all__ = [
    "LogCapture",
    "capture_log",
    "check",
    "check_pointer",
    "ffi",
    "lib",
    "opts",
    "to_str",
    "version",
]
