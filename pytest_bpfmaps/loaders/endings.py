"""Explains why a process ended: its exit status or signal, and what it wrote last."""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.privileges import ALL_CAPABILITIES

_MOST_LINES = 12
_MOST_NAMED = 4  # programs
_BCC_HEADERS = "Unable to find kernel headers"
_SCRIPT_HEADERS = re.compile(  # of bpftrace
    r"Include headers with missing type definitions|"
    r"fatal error: '(?:asm|generated|linux|net|uapi)/[\w/.-]+' file not found"
)
_LIBRARY = re.compile(r"error while loading shared libraries: (\S+): (.*)")
_VERSION = re.compile(r"(\S+): version [`'](\S+?)' not found \(required by (\S+?)\)")
_NO_NETWORK = re.compile(
    r"Network is unreachable|No route to host|Temporary failure in name resolution|Name or service not known|"
    r"network is unreachable|no such host|Could not resolve host",
)
_NO_SERVER = re.compile(r"(?:Couldn't|Could not) connect to server|[Ff]ailed to connect to \S+ port \d+")
_NO_BUS = re.compile(
    r"[Ff]ailed to connect to (?:system )?bus|system_bus_socket|connection to \"system\" message bus"
)
_NO_SYSTEMD = re.compile(r"not been booted with systemd|\$?NOTIFY_SOCKET\W* (?:was|is) not set")
_BUS = "/run/dbus/system_bus_socket"
_REFUSED = re.compile(
    r"[Oo]peration not permitted|[Pp]ermission denied|\bEPERM\b|\bEACCES\b"  # lower case in Go
)
_PERF = re.compile(r"perf[ _]event")
_PERF_REFUSED = re.compile(rf"{_PERF.pattern}.*(?:{_REFUSED.pattern})")
_PERFMON_SUFFICES = 2  # kernel.perf_event_paranoid, with which upstream's kernels take CAP_PERFMON
_ONLY_ROOT = re.compile(
    r"must be run as root|[Rr]un (?:this )?as root|requires root|[Nn]eeds? root|as the root user"
)
# what a shell's exit status says of a child that a signal has killed, sh(1)
_OF_SHELL = range(129, 129 + 64)
_CRASHES = {
    signal.SIGSEGV: "it used memory that it does not have",
    signal.SIGBUS: "it used memory that is not there, or wrongly aligned",
    signal.SIGABRT: "it gave up by abort(3), as a failed assertion does",
    signal.SIGFPE: "it divided by zero, or alike",
    signal.SIGILL: "the CPU does not have one of its instructions",
    signal.SIGTRAP: "it stopped itself, as a failed assertion does",
}
_SENT = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
_FOR = {
    "BPF": "for maps, and for loading programs",
    "NET_ADMIN": "for programs of the network (XDP, tc, cgroup sockets), and for attaching them",
    "PERFMON": "for programs that trace (kprobe, tracepoint, fentry, perf_event)",
    "SYS_ADMIN": "for LSM programs, ids of maps and programs, mounts",
}
_OTHERS = (
    "a file may have other owners; if the agent makes a user namespace, as unshare -U does, its capabilities "
    "count for nothing outside; or the kernel is locked down or a sandbox: try it in a virtual machine, "
    "pytest --bpf-kernel=6.1"
)


def ending(status: int | None) -> str:
    """Returns an exit status, or minus a signal's number, as text."""
    if status is None:
        return "ended"
    if status >= 0:
        said = f"ended with exit status {status}"
        known = status in _OF_SHELL and status - 128 in set(signal.Signals)
        return f"{said}, which a shell gives after {signal.Signals(status - 128).name}" if known else said
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def explain_signal(status: int | None, command: Sequence[str]) -> Explanation | None:
    """Explains a signal that killed a process, which nobody here has sent; None if it was none of these."""
    number = -(status or 0)
    if number in _CRASHES:
        run = shlex.join(["gdb", "-batch", "-ex", "run", "-ex", "backtrace", "--args", *command])
        return Explanation(_CRASHES[signal.Signals(number)], f"see where: {run}")
    if number in _SENT:
        fix = "find out what sends it: the agent, the test, or what watches over its container"
        return Explanation("neither this fixture nor the OOM killer sent that signal", fix)
    return None


def explain_output(text: str) -> Explanation | None:
    """Explains what the dynamic loader, a resolver or a shell wrote; None if it is not known."""
    if headers := _explain_headers(text):
        return headers
    if found := _LIBRARY.search(text):
        return Explanation(
            f"the library {found[1]} can't be loaded: {found[2]}", "install the package that has it"
        )
    if found := _VERSION.search(text):
        why = f"{found[1]} is older than the one that it was linked with: it lacks {found[2]}"
        return Explanation(why, "build it on a system that is as old as this one, or link it statically")
    if found := _NO_NETWORK.search(text):
        return Explanation(
            f"it needs a network that is not there: {found[0]}",
            _NEEDS_NETWORK,
        )
    if (found := _NO_SERVER.search(text)) and not _has_route():
        return Explanation(
            f"it needs a network, and this machine has no route to one: {found[0]}", _NEEDS_NETWORK
        )
    return _explain_services(text)


def _explain_headers(text: str) -> Explanation | None:
    """Explains that bcc or bpftrace compiled without the headers of the kernel; None if it did not."""
    release = os.uname().release
    install = (
        f"install linux-headers-{release} (Debian, Ubuntu), or name a folder with them: env={{**os.environ, "
    )
    if _BCC_HEADERS in text:
        return Explanation(
            "bcc compiles with the headers of the kernel, and there are none for this one",
            f"{install}'BCC_KERNEL_SOURCE': '/usr/src/…'}}; libbpf and bpftrace need none",
        )
    if _SCRIPT_HEADERS.search(text) and not os.path.exists(f"/lib/modules/{release}/build"):
        return Explanation(
            "the script includes headers of the kernel, and there are none for this one",
            f"{install}'BPFTRACE_KERNEL_BUILD': '/usr/src/…'}}; or let the script use BTF, without #include",
        )
    return None


_NEEDS_NETWORK = (
    "give it a namespace with the other end in it: netns=bpf_netns(); a guest reaches the host's network "
    "only with --bpf-vm-network"
)


def _has_route() -> bool:
    """Returns whether this network namespace has a default route.

    The kernel's own, over lo, refuses everything.
    """
    return any(line.split()[1] == "00000000" for line in _lines("/proc/net/route")) or any(
        line.startswith(f"{'0' * 32} 00 ") and line.split()[-1] != "lo"
        for line in _lines("/proc/net/ipv6_route")
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # a kernel without that protocol
        return []


def _explain_services(text: str) -> Explanation | None:
    """Explains that systemd or D-Bus is not there, as in a guest."""
    if found := _NO_SYSTEMD.search(text):
        if "NOTIFY_SOCKET" in found[0]:
            return Explanation(
                "it tells systemd that it is ready, and no systemd has started it",
                "make a datagram socket, and name it: env={**os.environ, 'NOTIFY_SOCKET': path}",
            )
        return Explanation(
            "it needs systemd, which does not run here" + _IN_GUEST,
            "start it without systemd, as the unit's ExecStart= has it",
        )
    if _NO_BUS.search(text) and not os.path.exists(_BUS):
        return Explanation(
            f"it needs D-Bus, and there is no {_BUS}" + _IN_GUEST,
            "start a bus before it: os.makedirs('/run/dbus', exist_ok=True), "
            "bpf.start(['dbus-daemon', '--system', '--nofork'])",
        )
    return None


_IN_GUEST = "; a guest runs no services"


def is_refusal(text: str) -> bool:
    """Returns whether a process wrote that the kernel refused something."""
    return _REFUSED.search(text) is not None


def explain_refusal(
    text: str,
    capabilities: int | None,
    user: str | int | None,
    needed: Callable[[], Mapping[str, Sequence[str]]] = dict,
) -> Explanation | None:
    """Names the capabilities for BPF that a process lacked, if it wrote that the kernel refused something.

    `needed` returns those that its programs need, with the names of the programs, as far as that is known.
    """
    refused = _REFUSED.search(text)
    if not refused or capabilities is None:
        return None
    had = [name for number, name in enumerate(ALL_CAPABILITIES) if capabilities >> number & 1]
    lacking = [] if "SYS_ADMIN" in had else [name for name in _FOR if name not in had]
    who = "it" if user is None else f"user {user!r}"
    if "SYS_ADMIN" in had and "NET_ADMIN" not in had:
        return Explanation(
            f"the kernel refused something ({refused[0]}), and {who} had CAP_SYS_ADMIN but not CAP_NET_ADMIN",
            "add NET_ADMIN to caps=: netlink wants it, as for tc, and before Linux 6.9 maps of sockets and "
            f"interfaces do, too, where other uses of BPF take SYS_ADMIN. If that does not help, {_OTHERS}",
        )
    of_perf = _PERF if lacking == ["SYS_ADMIN"] else _PERF_REFUSED
    lacks_one = "SYS_ADMIN" in lacking and "PERFMON" in had
    if lacks_one and of_perf.search(text) and _paranoid() > _PERFMON_SUFFICES:
        return Explanation(
            f"the kernel refused something ({refused[0]}), and {who} had no CAP_SYS_ADMIN; kernels of "
            "Debian demand it for perf events (tracepoint, kprobe, uprobe) if perf_event_paranoid is above 2",
            f"add SYS_ADMIN to caps=, or sysctl kernel.perf_event_paranoid={_PERFMON_SUFFICES}",
        )
    if not lacking or lacking == ["SYS_ADMIN"]:
        return Explanation(
            f"the kernel refused something ({refused[0]}), and {who} had the capabilities for BPF",
            _OTHERS,
        )
    listed = ", ".join(f"CAP_{name}" for name in had) or "no capability"
    needs = "; ".join(f"{name} is {_FOR[name]}" for name in lacking)
    by_programs = {name: programs for name, programs in needed().items() if name in lacking}
    if by_programs:
        wanted = [*(["BPF"] if "BPF" in lacking else []), *by_programs]
        users = "; ".join(f"{name} is for {_some(programs)}" for name, programs in by_programs.items())
        return Explanation(
            f"the kernel refused something ({refused[0]}), and {who} had {listed}, but its programs need "
            f"{' and '.join(wanted)}",
            f"add {' and '.join(wanted)} to caps=: {users}",
        )
    first = "BPF" if "BPF" in lacking else " or ".join(lacking[:2])
    if first != "BPF" and "PERFMON" in lacking and "perf_event" in text:  # the call that was refused
        first = "PERFMON"
    return Explanation(
        f"the kernel refused something ({refused[0]}), and {who} had {listed}",
        f"add {first} to caps=. Not given: {needs}",
    )


def _paranoid() -> int:
    lines = _lines("/proc/sys/kernel/perf_event_paranoid")
    return int(lines[0]) if lines else 0


def _some(programs: Sequence[str]) -> str:
    more = len(programs) - _MOST_NAMED
    return ", ".join(map(repr, programs[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def explain_user(text: str, user: str | int | None) -> Explanation | None:
    """Explains that a program wants to be root; None if it did not write that, or ran as root."""
    if user in (None, 0, "root") or not (found := _ONLY_ROOT.search(text)):
        return None
    return Explanation(
        f"it looks at the number of its user ({found[0]!r}), and user {user!r} ran it",
        "leave user= out, and limit root by caps=",
    )


def last_lines(stdout: str, stderr: str) -> str | None:
    """Returns the last lines of both streams for a message; None if there are none."""
    shown = []
    for name, text in (("stdout", stdout), ("stderr", stderr)):
        lines = text.rstrip("\n").splitlines()
        if lines:
            more = f" (the last {_MOST_LINES} lines)" if len(lines) > _MOST_LINES else ""
            shown += [f"  its {name}{more}:", *(f"    {line}" for line in lines[-_MOST_LINES:])]
    return "\n".join(shown) or None
