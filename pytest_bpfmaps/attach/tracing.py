"""Attaching to what the kernel and processes do: tracepoints, kprobes, uprobes, perf events."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..libbpf import ffi, lib, opts

Target = dict[str, Any]


def to_tracepoint(handle: Any, target: Target, on: str) -> Any:
    return lib.bpf_program__attach_tracepoint(handle, target["category"].encode(), target["event"].encode())


def to_raw_tracepoint(handle: Any, target: Target, on: str) -> Any:
    return lib.bpf_program__attach_raw_tracepoint(handle, target["tracepoint"].encode())


def to_kprobe(handle: Any, target: Target, on: str) -> Any:
    settings = opts("bpf_kprobe_opts", retprobe=target.get("retprobe", False), offset=target.get("offset", 0))
    return lib.bpf_program__attach_kprobe_opts(handle, target["function"].encode(), settings)


def to_uprobe(handle: Any, target: Target, on: str) -> Any:
    function = target.get("function")
    c_name = ffi.new("char[]", function.encode()) if function else ffi.NULL
    settings = opts("bpf_uprobe_opts", retprobe=target.get("retprobe", False), func_name=c_name)
    binary = os.fsencode(Path(target["binary"]).resolve())
    return lib.bpf_program__attach_uprobe_opts(
        handle, target.get("pid", -1), binary, target.get("offset", 0), settings
    )


def to_perf_event(handle: Any, target: Target, on: str) -> Any:
    return lib.bpf_program__attach_perf_event(handle, target["perf_event"])
