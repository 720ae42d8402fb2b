"""Why this kernel said no: missing capabilities, or a kernel that is locked down."""

from __future__ import annotations

from pathlib import Path

# numbers of <linux/capability.h>
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
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
    """The bits of this thread's effective capabilities, proc(5)."""
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def has_capability(name: str) -> bool:
    """Whether this thread has a capability, by its name in capabilities(7)."""
    return bool(effective_capabilities() >> CAPABILITIES[name] & 1)


def refusal_hint(program_type: str = "") -> str:
    """What to do about an EPERM of bpf(2), for the type of program that was refused."""
    tracing = program_type in _TRACING
    wanted = ["CAP_BPF", *(["CAP_PERFMON"] if tracing else ["CAP_NET_ADMIN"])]
    if not has_capability("CAP_SYS_ADMIN") and not all(has_capability(c) for c in wanted):
        return f"run as root or with {' and '.join(wanted)}, or in a virtual machine: pytest --bpf-kernel=6.1"
    if tracing:
        return (
            f"this process has the capabilities, so the kernel itself refuses {program_type} programs "
            "(locked down or a sandbox); run the test in a virtual machine: pytest --bpf-kernel=6.1"
        )
    return "this process has the capabilities, so the kernel itself refuses (locked down or a sandbox)"
