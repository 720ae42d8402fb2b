"""Whether an attach point, written as in ``SEC()``, is there for this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import strerror
from ..libbpf import ffi, lib
from ..libbpf.syscalls import address, bpf, pack
from .types import ProgramType

_FUNC, _TYPEDEF = 12, 8  # BTF kinds
_PROG_LOAD = 5  # enum bpf_cmd
# enum bpf_attach_type, what the target's name has in front in BTF, as which kind
_BY_TYPE = {"tp_btf": (23, "btf_trace_", _TYPEDEF), "iter": (28, "bpf_iter_", _FUNC)}
# functions that the kernel has with this kind of link
_MANY = {
    "kprobe.multi": ("bpf_kprobe_multi_link_attach", "register_fprobe_ips"),
    "kretprobe.multi": ("bpf_kprobe_multi_link_attach", "register_fprobe_ips"),
    "kprobe.session": ("bpf_session_is_return", "register_fprobe_ips"),
    "uprobe.multi": ("bpf_uprobe_multi_link_attach",),
    "uretprobe.multi": ("bpf_uprobe_multi_link_attach",),
}
_TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))

TypeProbe = Callable[[str], Any]
Vmlinux = Callable[[], object]


def probe_target(section: str, program_type: TypeProbe, vmlinux: Vmlinux) -> str:
    """Why nothing can be attached at `section`; the empty string when it can."""
    kind, _, target = section.partition("/")
    if kind in _BY_TYPE:
        return _by_type(*_BY_TYPE[kind], target, vmlinux)
    kind = kind.removesuffix(".s")
    if kind in _MANY:
        there = program_type("kprobe") and all(_btf(vmlinux, name, _FUNC) for name in _MANY[kind])
        return "" if there else "this kernel has no links to many functions of that kind"
    refused = _refused_type(section, program_type)
    if refused:
        return refused
    if kind in ("tracepoint", "tp"):
        return _tracepoint(target)
    if kind in ("raw_tracepoint", "raw_tp"):
        return (
            "" if _btf(vmlinux, f"btf_trace_{target}", _TYPEDEF) else f"there is no raw tracepoint {target}"
        )
    if kind in ("kprobe", "kretprobe"):
        return _event_source("kprobe", "kprobe_events") or _symbol(target.split("+")[0])
    if kind in ("uprobe", "uretprobe", "usdt"):
        return _event_source("uprobe", "uprobe_events")
    if kind in ("fentry", "fexit", "fmod_ret"):
        return "" if _btf(vmlinux, target, _FUNC) else f"the kernel's BTF has no function {target}"
    if kind == "lsm":
        return _lsm(target, vmlinux)
    return ""


def _by_type(attach_type: int, prefix: str, btf_kind: int, target: str, vmlinux: Vmlinux) -> str:
    """Loads a program for it: a kernel that refuses fentry, by which libbpf probes, may take iterators."""
    number = lib.btf__find_by_name_kind(vmlinux(), f"{prefix}{target}".encode(), btf_kind)
    if number < 0:
        return f"the kernel's BTF has no {prefix}{target}"
    code = ffi.new("uint64_t[]", [0xB7, 0x95])  # r0 = 0; exit
    licence = ffi.new("char[]", b"GPL")
    attributes = pack(
        ("I", ProgramType.TRACING),
        ("I", 2),
        ("Q", address(code)),
        ("Q", address(licence)),
        *[("I", 0)] * 2,  # log
        *[("Q", 0)] * 4,  # log, version and flags, name
        ("I", 0),
        ("I", attach_type),
        *[("Q", 0)] * 4,  # BTF of the program
        ("I", 0),
        ("I", number),
    )
    try:
        os.close(bpf(_PROG_LOAD, attributes))
    except OSError as e:
        return f"the kernel refuses such a program: {strerror(e.errno or 0)}"
    return ""


def _refused_type(section: str, program_type: TypeProbe) -> str:
    number, attach_type = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    if lib.libbpf_prog_type_by_name(section.encode(), number, attach_type) < 0:
        return "libbpf does not know this section name"
    wanted = ProgramType.from_number(number[0])
    answer = program_type(str(wanted)) if isinstance(wanted, ProgramType) else True
    return "" if answer else f"the kernel refuses programs of type {wanted}"


def tracefs() -> Path | None:
    """Where tracefs is mounted."""
    return next((p for p in _TRACEFS if (p / "events").is_dir()), None)


def _tracepoint(target: str) -> str:
    root = tracefs()
    if root is None:
        return "tracefs is not mounted at /sys/kernel/tracing, or this kernel has none"
    return "" if (root / "events" / target / "id").exists() else f"there is no tracepoint {target}"


def _event_source(name: str, legacy: str) -> str:
    if Path(f"/sys/bus/event_source/devices/{name}").exists():
        return ""
    root = tracefs()
    if root is not None and (root / legacy).exists():
        return ""
    return f"this kernel has no {name}s, neither as perf events nor in tracefs"


def _symbol(name: str) -> str:
    if not name or "*" in name or name in _symbols():
        return ""
    return f"there is no kernel function {name}"


@cache
def _symbols() -> frozenset[str]:
    """All names of /proc/kallsyms."""
    with open("/proc/kallsyms") as file:
        return frozenset(line.split()[2] for line in file)


def _btf(vmlinux: Vmlinux, name: str, kind: int) -> bool:
    return bool(lib.btf__find_by_name_kind(vmlinux(), name.encode(), kind) > 0)


def _lsm(target: str, vmlinux: Vmlinux) -> str:
    if not _btf(vmlinux, f"bpf_lsm_{target}", _FUNC):
        return f"there is no LSM hook {target}"
    active = Path("/sys/kernel/security/lsm")
    if active.exists() and "bpf" not in active.read_text().strip().split(","):
        return "the BPF LSM is not active: boot with 'bpf' in the lsm= list"
    return ""
