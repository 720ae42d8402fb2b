"""Which kind of target a type of program wants."""

from __future__ import annotations

import errno
from typing import Any

from ..errors import AttachError
from ..kernel.types import ProgramType
from .refusal import Target, show_target

_EXAMPLES = {
    "interface": 'an interface: attach(interface="veth0")',
    "cgroup": "a cgroup: attach(cgroup=bpf_cgroup)",
    "netns": 'a network namespace: attach(netns="/proc/self/ns/net")',
    "map": "a map of sockets: attach(map=obj.maps.sockets)",
    "socket": "a socket: attach(socket=sock)",
    "hook": 'a netfilter hook: attach(hook="input", family="ipv4")',
}
_WANTED = {
    **dict.fromkeys((ProgramType.XDP, ProgramType.SCHED_CLS, ProgramType.SCHED_ACT), "interface"),
    **{t: "cgroup" for t in ProgramType if t.name.startswith("CGROUP_") or t is ProgramType.SOCK_OPS},
    **dict.fromkeys((ProgramType.SK_LOOKUP, ProgramType.FLOW_DISSECTOR), "netns"),
    **dict.fromkeys((ProgramType.SK_SKB, ProgramType.SK_MSG), "map"),
    **dict.fromkeys((ProgramType.SOCKET_FILTER, ProgramType.SK_REUSEPORT), "socket"),
    ProgramType.NETFILTER: "hook",
}


def example_for(type: Any) -> str:
    """How a program of that type is attached."""
    example = _EXAMPLES.get(_WANTED.get(type, ""), "")
    return example.partition(": ")[2] or 'attach(interface="veth0")'


def check_kind(type: Any, target: Target, on: str) -> None:
    """Raises `AttachError` for a target that the kernel has no way to attach this type of program to."""
    wanted = _WANTED.get(type)
    if not target or wanted in target:
        return
    if wanted is None and not any(k in target for k in _EXAMPLES):
        return  # a tracing program, and no target of the network's
    if type is ProgramType.LSM and "cgroup" in target:
        return
    raise AttachError(
        f"cannot attach {on}",
        on=show_target(target),
        why=f"programs of type {type} do not go there",
        fix=f"give {_EXAMPLES[wanted]}" if wanted else "see attach_program for the targets of its type",
        errno=errno.EINVAL,
    )
