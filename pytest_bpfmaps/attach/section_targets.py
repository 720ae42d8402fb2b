"""Reads targets from the names of sections, and handles sections that this libbpf does not know.

https://docs.kernel.org/bpf/libbpf/program_types.html lists the names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.probe_programs import SLEEPABLE
from pytest_bpfmaps.kernel.section_types import NEWER, newer_section
from pytest_bpfmaps.libbpf import ffi, lib, to_str, version

_FUNCTION = re.compile(r"([\w.$@:-]+)(?:\+(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*))?$")

# libbpf before 1.0 accepted any section that began with one of these names, and took the first that fits. The
# value is the name that libbpf has for such programs today.
_PLACES = {"interface", "cgroup", "netns", "map", "socket", "hook"}  # the section says what is done there
_OLDER: dict[str, str] = {
    "xdp_devmap/": "xdp/devmap",
    "xdp_cpumap/": "xdp/cpumap",
    **{
        name: name
        for name in (
            *("socket", "sk_reuseport/migrate", "sk_reuseport", "classifier", "action", "xdp", "perf_event"),
            *("lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local", "cgroup_skb/ingress", "cgroup_skb/egress"),
            *("cgroup/skb", "cgroup/sock_create", "cgroup/sock_release", "cgroup/sock", "cgroup/post_bind4"),
            *("cgroup/post_bind6", "cgroup/dev", "sockops", "sk_skb/stream_parser", "sk_skb/stream_verdict"),
            *("sk_skb", "sk_msg", "lirc_mode2", "flow_dissector", "cgroup/bind4", "cgroup/bind6"),
            *("cgroup/connect4", "cgroup/connect6", "cgroup/sendmsg4", "cgroup/sendmsg6", "cgroup/recvmsg4"),
            *("cgroup/recvmsg6", "cgroup/getpeername4", "cgroup/getpeername6", "cgroup/getsockname4"),
            *("cgroup/getsockname6", "cgroup/sysctl", "cgroup/getsockopt", "cgroup/setsockopt", "sk_lookup"),
        )
    },
}


def kind(section: str) -> str:
    """Returns the first part of a section's name, such as ``uprobe``, without the marks ``.s`` and ``.w``."""
    return section.lstrip("?").partition("/")[0].removesuffix(".s").removesuffix(".w")


def is_return(section: str) -> bool:
    """Returns whether programs of the section run when their function returns."""
    return kind(section).startswith(("kretprobe", "uretprobe", "kretsyscall"))


def default_target(section: str) -> Target:
    """Returns the target that the section names, as `Program.attach` takes it; empty if it names none."""
    parse = _PARSERS.get(kind(section))
    rest = section.partition("/")[2]
    return parse(rest) if parse and rest else {}


def section_for(section: str, target: Target) -> str | None:
    """Returns the name of a section for that target; None if the section does not tell what it needs."""
    if "binary" in target:
        return "usdt" if "usdt" in target else "uprobe.multi" if "functions" in target else "uprobe"
    if "event" in target:
        return f"tracepoint/{target['category']}/{target['event']}" if "category" in target else None
    for key, name in {"tracepoint": "raw_tp", "syscall": "ksyscall", "function": "kprobe"}.items():
        if key in target and "target" not in target:
            return f"{name}/{target[key]}"
    if "functions" in target:
        functions = target["functions"]
        return f"kprobe.multi/{functions}" if isinstance(functions, str) else "kprobe.multi"
    told = target.keys() <= {"cookie", "cookies", "retprobe", "pid"} or target.keys() & _PLACES
    return section if told and section else None


def teach_unknown(program: Any) -> tuple[str, str] | None:
    """Tells libbpf the type of a program whose section it does not know; `program` is its handle.

    Such a section is newer than this libbpf, or is one that only libbpf before 1.0 accepted. Returns what was
    done, and what to write instead; None for a section that libbpf knows.
    """
    if lib.bpf_program__type(program) != ProgramType.UNSPEC:
        return None
    section = to_str(lib.bpf_program__section_name(program)).lstrip("?")
    return _teach_newer(program, section) or _teach_older(program, section)


def _teach_newer(program: Any, section: str) -> tuple[str, str] | None:
    name = newer_section(section)
    if name is None:
        return None
    type, attach_type, since, instead = NEWER[name]
    lib.bpf_program__set_type(program, type)
    lib.bpf_program__set_expected_attach_type(program, attach_type)
    if name.endswith(".s"):
        lib.bpf_program__set_flags(program, SLEEPABLE)
    known = "libbpf {}.{}".format(*version())
    other = f' or write SEC("{instead}")' if instead else ""
    return f'SEC("{section}") is newer than {known}, which refuses it', f"use libbpf {since} or later{other}"


def _teach_older(program: Any, section: str) -> tuple[str, str] | None:
    for old, name in _OLDER.items():
        if not section.startswith(old):
            continue
        numbers = ffi.new("uint32_t[2]")
        if lib.libbpf_prog_type_by_name(name.encode(), numbers, numbers + 1) < 0:
            return None
        lib.bpf_program__set_type(program, numbers[0])
        lib.bpf_program__set_expected_attach_type(program, numbers[1])
        what = f'SEC("{section}") is a name that libbpf 1.0 and later refuse: it is taken for {name!r}'
        return what, f'write SEC("{name}")'
    return None


def _tracepoint(rest: str) -> Target:
    category, _, event = rest.partition("/")
    return {"category": category, "event": event} if event else {}


def _function(rest: str) -> Target:
    found = _FUNCTION.match(rest)
    if not found:
        return {"function": rest}
    return {"function": found[1], **({"offset": _number(found[2])} if found[2] else {})}


def _number(digits: str) -> int:
    """Returns the value of a number as C writes it, which is also libbpf's way: octal after a 0."""
    return int(digits, 8 if digits.isdigit() and digits.startswith("0") else 0)


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
