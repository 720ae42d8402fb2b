"""Explains why this kernel refused something: missing capabilities, or lockdown."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.libbpf.calls import reason

ALL_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *(
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
    ),
    *(
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
    ),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL"),
    *("SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ"),
    *("PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)
"""The names of <linux/capability.h>, without ``CAP_``, in the order of their numbers."""
_OF_BPF = ("NET_ADMIN", "SYS_ADMIN", "PERFMON", "BPF")
CAPABILITIES = {f"CAP_{name}": ALL_CAPABILITIES.index(name) for name in _OF_BPF}
_CAPSET_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_TRACING = (
    "tracepoint",
    "kprobe",
    "perf_event",
    "raw_tracepoint",
    "raw_tracepoint_writable",
    "tracing",
    "lsm",
)


def effective_capabilities() -> int:
    """Returns the bits of this thread's effective capabilities, proc(5)."""
    return capabilities_of().get("CapEff", 0)


@contextmanager
def only_capabilities(bits: int) -> Iterator[None]:
    """Drops all effective capabilities of this thread except `bits` until the end, capabilities(7).

    Raises `UnsupportedError` if the kernel refuses.
    """
    before = capabilities_of()
    _set_effective(before, before["CapEff"] & bits)
    try:
        yield
    finally:
        _set_effective(before, before["CapEff"])


def set_capabilities(bits: int) -> None:
    """Makes `bits` this thread's permitted, effective and inheritable capabilities. Raises OSError."""
    number = _capset(bits, bits, bits)
    if number:
        raise OSError(number, os.strerror(number))


def capabilities_of(process: str = "thread-self") -> dict[str, int]:
    """Returns the capability sets of a process, such as ``CapEff``, proc(5); empty if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(errors="replace").split("\n")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = (line.partition(":") for line in lines if line.startswith("Cap"))
    return {name: int(value, 16) for name, _, value in fields}


def _set_effective(sets: dict[str, int], effective: int) -> None:
    number = _capset(effective, sets["CapPrm"], sets["CapInh"])
    if number:
        raise UnsupportedError("cannot change this thread's capabilities", why=reason(number))


def _capset(effective: int, permitted: int, inheritable: int) -> int:
    """Calls capset(2), and returns 0 or the error number."""
    header = ffi.from_buffer(bytearray(struct.pack("=Ii", _CAPSET_VERSION, 0)))
    sets = (effective, permitted, inheritable)
    halves = [bits >> shift & 0xFFFFFFFF for shift in (0, 32) for bits in sets]
    return ffi.errno if lib.capset(header, ffi.from_buffer(struct.pack("=6I", *halves))) else 0


def has_capability(name: str) -> bool:
    """Returns whether this thread has a capability, by its name in capabilities(7)."""
    return bool(effective_capabilities() >> CAPABILITIES[name] & 1)


def may_load_everything() -> bool:
    """Returns whether this thread has all capabilities that any BPF program needs."""
    return has_capability("CAP_SYS_ADMIN") or all(
        has_capability(name) for name in ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON")
    )


def host_refusal() -> str:
    """Returns why this process can load no BPF program at all on this kernel; empty if it can.

    Linux 5.8 split CAP_BPF from CAP_SYS_ADMIN, commit a17b53c4a4b5. In a user namespace or a sandbox the
    capability may have no effect, so this function loads a program to find out.
    """
    from pytest_bpfmaps.kernel.features import probe

    if not has_capability("CAP_BPF") and not has_capability("CAP_SYS_ADMIN"):
        return f"uid {os.geteuid()} has no CAP_BPF"
    if not probe("program_type", "socket_filter"):
        return f"uid {os.geteuid()} has the capabilities, but the kernel refuses all the same"
    return ""


def refusal_hint(program_type: str = "") -> str:
    """Returns what to do about an EPERM of bpf(2), for the program type that was refused."""
    tracing = program_type in _TRACING
    wanted = ["CAP_BPF", *(["CAP_PERFMON"] if tracing else ["CAP_NET_ADMIN"])]
    if not has_capability("CAP_SYS_ADMIN") and not all(has_capability(c) for c in wanted):
        return f"run as root or with {' and '.join(wanted)}, or in a virtual machine: pytest --bpf-kernel=6.1"
    from pytest_bpfmaps.kernel.features import probe

    if program_type and ProgramType.from_name(program_type) and probe("program_type", program_type):
        return f"this kernel takes other {program_type} programs: check this one's code and section"
    if tracing:
        return (
            f"this process has the capabilities, so the kernel itself refuses {program_type} programs "
            "(locked down or a sandbox); run the test in a virtual machine: pytest --bpf-kernel=6.1"
        )
    return "this process has the capabilities, so the kernel itself refuses (locked down or a sandbox)"
