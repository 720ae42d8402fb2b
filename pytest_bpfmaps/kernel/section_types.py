"""Finds the program type of a section's name."""

from __future__ import annotations

from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.section_names import SECTIONS, TARGETED
from pytest_bpfmaps.libbpf import capture_log, ffi, lib

# section: (program type, enum bpf_attach_type, first libbpf that knows it, section that older ones know
# instead)
NEWER: dict[str, tuple[ProgramType, int, str, str]] = {
    "kprobe.session": (ProgramType.KPROBE, 56, "1.5", ""),
    "uprobe.multi": (ProgramType.KPROBE, 48, "1.3", "uprobe"),
    "uretprobe.multi": (ProgramType.KPROBE, 48, "1.3", "uretprobe"),
    "uprobe.multi.s": (ProgramType.KPROBE, 48, "1.3", "uprobe.s"),
    "uretprobe.multi.s": (ProgramType.KPROBE, 48, "1.3", "uretprobe.s"),
    "uprobe.session": (ProgramType.KPROBE, 57, "1.6", ""),
    "uprobe.session.s": (ProgramType.KPROBE, 57, "1.6", ""),
    "netfilter": (ProgramType.NETFILTER, 45, "1.3", ""),
    "tcx": (ProgramType.SCHED_CLS, 0, "1.3", "tc"),  # loaded as any tc program, for older kernels too
    "tc/ingress": (ProgramType.SCHED_CLS, 0, "1.3", "tc"),
    "tc/egress": (ProgramType.SCHED_CLS, 0, "1.3", "tc"),
    "netkit/primary": (ProgramType.SCHED_CLS, 54, "1.3", ""),  # Linux 6.7
    "netkit/peer": (ProgramType.SCHED_CLS, 55, "1.3", ""),
    "sk_skb/verdict": (ProgramType.SK_SKB, 38, "1.4", ""),  # Linux 5.13
    "cgroup/connect_unix": (ProgramType.CGROUP_SOCK_ADDR, 49, "1.3", ""),  # Linux 6.7
    "cgroup/sendmsg_unix": (ProgramType.CGROUP_SOCK_ADDR, 50, "1.3", ""),
    "cgroup/recvmsg_unix": (ProgramType.CGROUP_SOCK_ADDR, 51, "1.3", ""),
    "cgroup/getpeername_unix": (ProgramType.CGROUP_SOCK_ADDR, 52, "1.3", ""),
    "cgroup/getsockname_unix": (ProgramType.CGROUP_SOCK_ADDR, 53, "1.3", ""),
}


def newer_section(section: str) -> str | None:
    """Returns the name in `NEWER` for a section; None for any other section, and for a misspelt one."""
    kind = section.partition("/")[0]
    whole = kind in TARGETED or section in SECTIONS or section == kind
    name = section if section in NEWER else kind
    return name if whole and name in NEWER else None


def section_type(section: str) -> tuple[ProgramType, int] | None:
    """Returns the program type and ``enum bpf_attach_type`` of a section, such as ``fentry/vfs_read``.

    Returns None for a name that neither libbpf nor `NEWER` knows, and for a type newer than `ProgramType`.
    """
    number, attach_type = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    with capture_log():
        unknown = lib.libbpf_prog_type_by_name(section.encode(), number, attach_type) < 0
    if unknown:
        newer = newer_section(section)
        return NEWER[newer][:2] if newer else None
    type = ProgramType.from_number(number[0])
    return (type, attach_type[0]) if isinstance(type, ProgramType) else None
