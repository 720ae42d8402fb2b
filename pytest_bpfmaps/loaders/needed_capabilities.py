"""Tells which capabilities the programs need that a loader has in its binary, or gets as an argument."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.loaders.embedded_objects import NeededProgram, needed_by

# is_perfmon_prog_type() and is_net_admin_prog_type() in kernel/bpf/syscall.c
_PERFMON = "kprobe tracepoint perf_event raw_tracepoint raw_tracepoint_writable tracing lsm struct_ops ext"
_NET_ADMIN = (
    "sched_cls sched_act xdp lwt_in lwt_out lwt_xmit lwt_seg6local sk_skb sk_msg flow_dissector "
    "cgroup_device cgroup_sock cgroup_sock_addr cgroup_sockopt cgroup_sysctl sock_ops sk_lookup ext netfilter"
)
_TYPES = {
    name: {ProgramType.from_name(each) for each in types.split()}
    for name, types in (("NET_ADMIN", _NET_ADMIN), ("PERFMON", _PERFMON))
}


def needed_capabilities(files: Iterable[Path]) -> dict[str, list[str]]:
    """Returns the capabilities, without ``CAP_``, each with the names of the programs that need it to load.

    It is empty if the files have no objects that libbpf can open.
    """
    needed: dict[str, list[str]] = {}
    for each in needed_by(files):
        if isinstance(each, NeededProgram):
            for capability, types in _TYPES.items():
                if each.type in types:
                    needed.setdefault(capability, []).append(each.name)
    return needed
