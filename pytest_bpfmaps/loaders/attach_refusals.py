"""Explains why a loader could not attach a program: an event, function or file system is missing."""

from __future__ import annotations

import errno
import os
import re

from pytest_bpfmaps.attach.missing_targets import explain_missing, explain_no_types_of
from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.known_names import is_function, is_recorded_tracepoint, is_tracepoint
from pytest_bpfmaps.kernel.mounts import how_to_mount
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.kernel.tracefs import no_tracefs, tracefs

# libbpf's words, then those of bpftrace, then those of cilium/ebpf, old and new
_TRACEPOINT = re.compile(
    r"failed to (?:determine|create) tracepoint '([\w-]+)/(\w+)' perf event|"
    r"tracepoint not found: ([\w-]+):(\w+)|"
    r"trace event ([\w-]+)/(\w+): file does not exist|"
    r"/tracing/events/([\w-]+)/(\w+)/id: no such file or directory"
)
_OF_MACHINE = (
    r"(?:__(?:x64|ia32|arm64|riscv|s390x?|powerpc)_(?!sys_))?"  # which cilium/ebpf tries in vain, too
)
_KPROBE = re.compile(
    r"failed to (?:add legacy|create) k(?:ret)?probe (?:event for )?'(\w+)\+0x[0-9a-f]+'.*(?:No such|ENOENT)|"
    r"[Ee]rror attaching probe: '?k(?:ret)?probe:(\w+)(?![\w*?[])|"  # a pattern is no name
    rf"perf_kprobe PMU.*: symbol '{_OF_MACHINE}(\w+)\S*' not found|"
    rf"perf_kprobe PMU.*: token {_OF_MACHINE}(\w+)\S*: not found"
)
_PATTERN = re.compile(r"[Ee]rror attaching probe: '?(k(?:ret)?probe:\w*[*?[][^\s']*)")
# libbpf tells no section; then words of a tool that silences libbpf, then those of bpftrace for a kfunc
_TYPED = re.compile(
    r"failed to find kernel BTF type ID of '([^']+)'|failed to set attach target for (\w+): No such process|"
    r"No BTF found for (?:\w+:)?(\w+)"
)
_NO_TRACEFS = re.compile(r"/sys/kernel/(?:debug/)?tracing/\S*?:? No such file or directory")
_LEGACY = "failed to add legacy kprobe event"  # libbpf adds such an event in a file of tracefs
# libbpf's words, the kernel's, then those of cilium/ebpf
_TAKEN = re.compile(
    r"failed to attach to \w+: .*(?:resource busy|EBUSY)|Can't replace active BPF XDP link|"
    r"XDP program already attached|Native and generic XDP can't be active at the same time|"
    r"can't (?:create link|attach program): (?:device or resource busy|file exists)"
)
_NO_BPFFS = "bpffs not mounted"
_BPFFS = "/sys/fs/bpf"


def explain_attach(text: str) -> Explanation | None:
    """Explains why a program could not be attached, from what libbpf or bpftrace wrote; None if unknown."""
    if tracefs() is None and (_NO_TRACEFS.search(text) or _LEGACY in text):
        return no_tracefs()
    if found := _TRACEPOINT.search(text):
        category, event = filter(None, found.groups())
        missing = explain_missing(errno.ENOENT, {"category": category, "event": event})
        return missing and _of_other_kernels(missing, is_tracepoint(f"{category}/{event}"))
    if found := _KPROBE.search(text):
        name = next(filter(None, found.groups()))
        missing = explain_missing(errno.ENOENT, {"function": name})
        return missing and _of_other_kernels(missing, is_function(name))
    if found := _PATTERN.search(text):
        return Explanation(
            f"bpftrace could not attach to the functions of {found[1]}",
            "if its list has names without a pattern, too, give those a probe of their own: "
            "bpftrace 0.17 can't attach a list of both",
        )
    if found := _TYPED.search(text):
        name = next(filter(None, found.groups()))
        kind = _kind_of(name)
        missing = explain_no_types_of(kind, name)
        return _of_other_kernels(missing, kind == "tp_btf" or is_function(name))
    if found := _TAKEN.search(text):
        return Explanation(
            f"another program is attached there already ({found[0]})",
            "detach it first: 'bpftool net show' and 'bpftool link show' list programs, in the agent's "
            "network namespace; or start the agent in a new one: netns=bpf_netns()",
        )
    if _NO_BPFFS in text and not os.path.ismount(_BPFFS):
        return Explanation(f"no bpf file system is mounted at {_BPFFS}", how_to_mount("bpf"))
    return None


def _of_other_kernels(missing: Explanation, is_known: bool) -> Explanation:
    """Returns the explanation of a missing name; without similar names if other kernels have the name."""
    if not (is_known and missing.fix and missing.fix.startswith("did you mean")):
        return missing
    fix = (
        "other kernels have that name, so it is not misspelt: use a version of the agent for Linux "
        f"{release()}, or let it attach to what this kernel has in its place"
    )
    return Explanation(missing.why, fix)


def _kind_of(name: str) -> str:
    """Returns ``tp_btf`` for the name of a tracepoint alone, else ``fentry``; libbpf does not tell which."""
    return "tp_btf" if is_recorded_tracepoint(name) and not is_function(name) else "fentry"
