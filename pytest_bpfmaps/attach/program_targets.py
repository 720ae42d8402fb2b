"""Tables of the kinds of target that each program type takes."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.attach.refusals import show_target
from pytest_bpfmaps.attach.section_targets import kind
from pytest_bpfmaps.errors import AttachError, Explanation
from pytest_bpfmaps.kernel.bpf_types import ProgramType

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


# keyword of a target: the type of program that takes it
_WATCHED = {
    "event": ProgramType.TRACEPOINT,
    "tracepoint": ProgramType.RAW_TRACEPOINT,
    "perf_event": ProgramType.PERF_EVENT,
    "target": ProgramType.EXT,
    **dict.fromkeys(("binary", "functions", "function", "syscall"), ProgramType.KPROBE),
}
_BY_SECTION_ONLY = (
    'its section names the target, SEC("fentry/FUNCTION"), SEC("lsm/HOOK"): leave it out of attach()'
)
MANY = frozenset(
    {"kprobe.multi", "kretprobe.multi", "kprobe.session", "uprobe.multi", "uretprobe.multi", "uprobe.session"}
)
"""The sections of programs that are attached to many functions with one link."""

# first part of a section's name: an example of the call
_BY_SECTION = {
    **dict.fromkeys(("kprobe", "kretprobe"), 'attach(function="vfs_read")'),
    **dict.fromkeys(("ksyscall", "kretsyscall"), 'attach(syscall="openat")'),
    **dict.fromkeys(("kprobe.multi", "kretprobe.multi", "kprobe.session"), 'attach(functions="vfs_*")'),
    **dict.fromkeys(("uprobe", "uretprobe"), 'attach(binary="/bin/bash", function="readline")'),
    **dict.fromkeys(
        ("uprobe.multi", "uretprobe.multi", "uprobe.session"), 'attach(binary="libc", functions="mem*")'
    ),
    "usdt": 'attach(binary="/bin/bash", usdt="provider:name")',
    **dict.fromkeys(("tracepoint", "tp"), 'attach(category="syscalls", event="sys_enter_openat")'),
    **dict.fromkeys(("raw_tracepoint", "raw_tp"), 'attach(tracepoint="sched_switch")'),
    "lsm_cgroup": "attach(cgroup=bpf_cgroup)",
    "perf_event": 'attach(perf_event="cpu_clock", frequency=100)',
}
_NOWHERE = {
    ProgramType.SYSCALL: "run it: program.run()",
    **dict.fromkeys(
        (ProgramType.LWT_IN, ProgramType.LWT_OUT, ProgramType.LWT_XMIT, ProgramType.LWT_SEG6LOCAL),
        "pin it, and give it to a route: ip route add … encap bpf",
    ),
}


def example_for(type: Any, section: str = "") -> str:
    """Returns a call that attaches a program of that type and that section, as an example."""
    example = _EXAMPLES.get(_WANTED.get(type, ""), "").partition(": ")[2]
    return example or _BY_SECTION.get(kind(section), 'attach(interface="veth0")')


def ways_for(name: str, type: Any, section: str) -> str:
    """Returns what `example_for` returns, for program `name` of an object."""
    nowhere = _NOWHERE.get(type)
    if nowhere is None:
        return f"obj.programs.{name}.{example_for(type, section)}"
    return nowhere.replace("program", f"obj.programs.{name}")


def no_target(type: Any, section: str) -> Explanation:
    """Explains why a program can't be attached if its section names no target."""
    way = _NOWHERE.get(type) or f"name it: program.{example_for(type, section)}"
    return Explanation(f"the section {section!r} names no target", way)


def check_watched(type: Any, section: str, target: Target, on: str) -> None:
    """Raises `AttachError` if a tracing target does not fit this type of program."""
    wanted = next((_WATCHED[key] for key in _WATCHED if key in target), type)
    of_tracepoints = (ProgramType.RAW_TRACEPOINT, ProgramType.RAW_TRACEPOINT_WRITABLE)
    is_open = isinstance(target.get("perf_event"), int)  # an open event of any kind
    if wanted is type or is_open or (wanted in of_tracepoints and type in of_tracepoints):
        return
    raise _goes_elsewhere(on, target, type, _way(type, section))


def explain_many(section: str, target: Target) -> Explanation | None:
    """Explains why a program for one function can't be attached to many, or one for many to a single one."""
    name = kind(section)
    if "functions" in target and name not in MANY:
        many = f"{name}.multi" if f"{name}.multi" in MANY else "kprobe.multi"
        return Explanation(
            f'a program of SEC("{name}") goes to one function', f'write SEC("{many}"), or give function='
        )
    if "function" in target and name in MANY:
        return Explanation(
            f'a program of SEC("{name}") goes to many functions', "give functions=, a pattern or a list"
        )
    return None


def _way(type: Any, section: str) -> str:
    """Returns how to attach a tracing program."""
    if type in (ProgramType.TRACING, ProgramType.LSM) and kind(section) != "lsm_cgroup":
        return _BY_SECTION_ONLY
    if type is ProgramType.EXT:
        return 'give the program whose function it replaces: attach(target=program, function="name")'
    return f"give {_BY_SECTION.get(kind(section), 'its target')}"


def check_kind(type: Any, target: Target, on: str, section: str) -> None:
    """Raises `AttachError` for a target to which the kernel can't attach this type of program."""
    wanted = _WANTED.get(type)
    if not target or wanted in target:
        return
    if wanted is None and not any(k in target for k in _EXAMPLES):
        return  # a tracing program, and not a network target
    if type is ProgramType.LSM and "cgroup" in target:
        return
    raise _goes_elsewhere(on, target, type, f"give {_EXAMPLES[wanted]}" if wanted else _way(type, section))


def _goes_elsewhere(on: str, target: Target, type: Any, fix: str) -> AttachError:
    return AttachError(
        f"cannot attach {on}",
        on=show_target(target),
        why=f"programs of type {type} do not go there",
        fix=fix,
        errno=errno.EINVAL,
    )
