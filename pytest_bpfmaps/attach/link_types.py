"""Names of the kernel's links and attach points, as <linux/bpf.h> numbers them."""

from __future__ import annotations

from pytest_bpfmaps.kernel.bpf_types import KernelEnum
from pytest_bpfmaps.libbpf import lib, to_str


class LinkType(KernelEnum):
    """``enum bpf_link_type``."""

    UNSPEC = 0
    RAW_TRACEPOINT = 1
    TRACING = 2
    CGROUP = 3
    ITER = 4
    NETNS = 5
    XDP = 6
    PERF_EVENT = 7
    KPROBE_MULTI = 8
    STRUCT_OPS = 9
    NETFILTER = 10
    TCX = 11
    UPROBE_MULTI = 12
    NETKIT = 13
    SOCKMAP = 14


class AttachType(KernelEnum):
    """The members of ``enum bpf_attach_type`` that this package uses by name."""

    CGROUP_INET_INGRESS = 0
    CGROUP_INET_EGRESS = 1
    SK_SKB_STREAM_PARSER = 4
    SK_SKB_STREAM_VERDICT = 5
    FLOW_DISSECTOR = 17
    XDP_DEVMAP = 33
    XDP_CPUMAP = 35
    XDP = 37
    NETFILTER = 45
    TCX_INGRESS = 46
    TCX_EGRESS = 47
    NETKIT_PRIMARY = 54
    NETKIT_PEER = 55


def attach_type_name(number: int) -> str:
    """Returns a name such as ``cgroup_inet_ingress``; the number if libbpf and this list have no name."""
    known = AttachType.from_number(number)
    if isinstance(known, AttachType):
        return str(known)
    return to_str(lib.libbpf_bpf_attach_type_str(number)) or str(number)
