"""What a section's name says of the program's target, and sections that are newer than libbpf.

https://docs.kernel.org/bpf/libbpf/program_types.html lists the names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..kernel.types import ProgramType
from ..libbpf import lib, to_str

Target = dict[str, Any]

_FUNCTION = re.compile(r"([\w.$]+)(?:\+(0x[0-9a-fA-F]+|\d+))?$")

# section: program type, enum bpf_attach_type; for a libbpf that does not know it
_NEWER: dict[str, tuple[ProgramType, int]] = {
    "kprobe.session": (ProgramType.KPROBE, 56),  # libbpf 1.5
    "uprobe.multi": (ProgramType.KPROBE, 48),  # libbpf 1.3
    "uretprobe.multi": (ProgramType.KPROBE, 48),
    "uprobe.multi.s": (ProgramType.KPROBE, 48),
    "uretprobe.multi.s": (ProgramType.KPROBE, 48),
    "uprobe.session": (ProgramType.KPROBE, 57),  # libbpf 1.6
    "uprobe.session.s": (ProgramType.KPROBE, 57),
    "netfilter": (ProgramType.NETFILTER, 45),  # libbpf 1.3
    "tcx": (ProgramType.SCHED_CLS, 0),  # libbpf 1.3: loaded as any tc program, for older kernels too
    "tc/ingress": (ProgramType.SCHED_CLS, 0),
    "tc/egress": (ProgramType.SCHED_CLS, 0),
    "cgroup/connect_unix": (ProgramType.CGROUP_SOCK_ADDR, 49),  # libbpf 1.3, Linux 6.7
    "cgroup/sendmsg_unix": (ProgramType.CGROUP_SOCK_ADDR, 50),
    "cgroup/recvmsg_unix": (ProgramType.CGROUP_SOCK_ADDR, 51),
    "cgroup/getpeername_unix": (ProgramType.CGROUP_SOCK_ADDR, 52),
    "cgroup/getsockname_unix": (ProgramType.CGROUP_SOCK_ADDR, 53),
}
_NAMES = """
    socket sk_reuseport kprobe kretprobe uprobe uretprobe usdt ksyscall kretsyscall kprobe.multi
    kretprobe.multi kprobe.session uprobe.multi uretprobe.multi uprobe.session tc tcx classifier action
    tracepoint tp raw_tp raw_tracepoint tp_btf fentry fexit fmod_ret fentry.s fexit.s lsm lsm.s lsm_cgroup
    iter iter.s syscall xdp xdp.frags xdp_devmap xdp_cpumap perf_event lwt_in lwt_out lwt_xmit lwt_seg6local
    sockops sk_skb sk_msg sk_lookup flow_dissector cgroup_skb/ingress cgroup_skb/egress cgroup/skb
    cgroup/sock_create cgroup/connect4 cgroup/connect6 cgroup/bind4 cgroup/bind6 cgroup/sendmsg4
    cgroup/recvmsg4 cgroup/getsockopt cgroup/setsockopt cgroup/sysctl cgroup/dev struct_ops struct_ops.s
    freplace netfilter
"""
SECTIONS = tuple(_NAMES.split())
"""Names that libbpf knows, for suggestions; of those with a target only the first part."""

_SLEEPABLE = 1 << 4  # BPF_F_SLEEPABLE


def kind(section: str) -> str:
    """The first part of a section's name without the mark of what may sleep, ``uprobe``."""
    return section.lstrip("?").partition("/")[0].removesuffix(".s").removesuffix(".w")


def is_return(section: str) -> bool:
    """Whether the section is of a program that runs when its function returns."""
    return kind(section).startswith(("kretprobe", "uretprobe", "kretsyscall"))


def default_target(section: str) -> Target:
    """The target that the section names, as `Program.attach` takes it; empty when it names none."""
    parse = _PARSERS.get(kind(section))
    rest = section.partition("/")[2]
    return parse(rest) if parse and rest else {}


def teach_newer(program: Any) -> None:
    """Tells libbpf the type of a program (its handle) whose section is newer than it is."""
    if lib.bpf_program__type(program) != ProgramType.UNSPEC:
        return
    section = to_str(lib.bpf_program__section_name(program)).lstrip("?")
    name = section if section in _NEWER else section.partition("/")[0]
    if name not in _NEWER:
        return
    type, attach_type = _NEWER[name]
    lib.bpf_program__set_type(program, type)
    lib.bpf_program__set_expected_attach_type(program, attach_type)
    if name.endswith(".s"):
        lib.bpf_program__set_flags(program, _SLEEPABLE)


def _tracepoint(rest: str) -> Target:
    category, _, event = rest.partition("/")
    return {"category": category, "event": event} if event else {}


def _function(rest: str) -> Target:
    found = _FUNCTION.match(rest)
    if not found:
        return {"function": rest}
    return {"function": found[1], **({"offset": int(found[2], 0)} if found[2] else {})}


def _in_binary(rest: str) -> Target:
    binary, _, function = rest.rpartition(":")
    return {"binary": binary, **_function(function)} if binary else {}


def _many_in_binary(rest: str) -> Target:
    binary, _, pattern = rest.rpartition(":")
    return {"binary": binary, "functions": pattern} if binary else {}


def _usdt(rest: str) -> Target:
    parts = rest.rsplit(":", 2)
    return {"binary": parts[0], "usdt": f"{parts[1]}:{parts[2]}"} if len(parts) == 3 else {}


_PARSERS: dict[str, Callable[[str], Target]] = {
    "tracepoint": _tracepoint,
    "tp": _tracepoint,
    "raw_tracepoint": lambda rest: {"tracepoint": rest},
    "raw_tp": lambda rest: {"tracepoint": rest},
    "kprobe": _function,
    "kretprobe": _function,
    "ksyscall": lambda rest: {"syscall": rest},
    "kretsyscall": lambda rest: {"syscall": rest},
    "kprobe.multi": lambda rest: {"functions": rest},
    "kretprobe.multi": lambda rest: {"functions": rest},
    "kprobe.session": lambda rest: {"functions": rest},
    "uprobe": _in_binary,
    "uretprobe": _in_binary,
    "uprobe.multi": _many_in_binary,
    "uretprobe.multi": _many_in_binary,
    "uprobe.session": _many_in_binary,
    "usdt": _usdt,
}
