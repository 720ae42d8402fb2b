"""Attaches tracing programs, and explains why the kernel refuses one."""

from __future__ import annotations

import errno
import os
from typing import Any

from pytest_bpfmaps.attach import Target, iterators, kprobes, perf_events, tracepoints, uprobes
from pytest_bpfmaps.attach.links import Link
from pytest_bpfmaps.attach.missing_targets import explain_missing, explain_no_category
from pytest_bpfmaps.attach.program_targets import check_watched, explain_many, no_target
from pytest_bpfmaps.attach.refusals import show_target
from pytest_bpfmaps.attach.section_targets import default_target, kind
from pytest_bpfmaps.attach.targets import Way, Ways, find_way
from pytest_bpfmaps.errors import ENOTSUPP, AttachError, Explanation, UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.privileges import refusal_hint
from pytest_bpfmaps.libbpf import capture_log, ffi
from pytest_bpfmaps.libbpf.calls import as_errno, reason

TYPES = frozenset(
    {
        ProgramType.KPROBE,
        ProgramType.TRACEPOINT,
        ProgramType.PERF_EVENT,
        ProgramType.RAW_TRACEPOINT,
        ProgramType.RAW_TRACEPOINT_WRITABLE,
        ProgramType.TRACING,
        ProgramType.LSM,
        ProgramType.EXT,
    }
)

_TRAMPOLINE = frozenset({ProgramType.TRACING, ProgramType.LSM, ProgramType.EXT})
_NETWORK = frozenset({"interface", "cgroup", "netns", "map", "socket", "hook"})
_PLACE = frozenset({"retprobe", "offset", "cookie"})
_PROCESS = frozenset({"pid", "cookie"})
_MODIFIERS = _PLACE | _PROCESS | {"cookies"}

# (keywords that are required, keywords that are allowed, function that attaches)
_WAYS: Ways = [
    (frozenset(), frozenset({"cookie"}), tracepoints.where_loaded),
    (frozenset({"category", "event"}), frozenset({"cookie"}), tracepoints.to_tracepoint),
    (frozenset({"tracepoint"}), frozenset({"cookie"}), tracepoints.to_raw_tracepoint),
    (frozenset({"target"}), frozenset({"function"}), tracepoints.to_program),
    (frozenset({"function"}), _PLACE, kprobes.to_kprobe),
    (frozenset({"syscall"}), frozenset({"retprobe", "cookie"}), kprobes.to_syscall),
    (frozenset({"functions"}), frozenset({"retprobe", "cookies"}), kprobes.to_kprobe_multi),
    (frozenset({"binary", "functions"}), frozenset({"pid", "retprobe", "cookies"}), uprobes.to_uprobe_multi),
    (frozenset({"binary", "usdt"}), _PROCESS, uprobes.to_usdt),
    (frozenset({"binary"}), _PLACE | _PROCESS | {"function"}, uprobes.to_uprobe),
    (frozenset({"perf_event"}), _PROCESS | {"cpu", "frequency", "period"}, perf_events.to_perf_event),
]


def takes(handle: Any, type: Any, target: Target) -> bool:
    """Returns whether this module attaches such a program; other modules attach to network targets."""
    return type in TYPES and (iterators.is_iterator(handle) or target.keys().isdisjoint(_NETWORK))


def attach(handle: Any, on: str, section: str, type: Any, target: Target) -> Link:
    """Attaches a program of one of `TYPES`. Raises `AttachError`; see `attach_program` for the targets."""
    full = target
    if target.keys() <= _MODIFIERS:
        full = default_target(section) | target
    if iterators.is_iterator(handle):
        way: Way = iterators.attach
    else:
        way = find_way(_WAYS, full, on)
        check_watched(type, section, full, on)
        if way is tracepoints.where_loaded:
            tracepoints.refuse_same_named(section, on)
    with capture_log() as log:
        try:
            link = way(handle, full, on)
            number = ffi.errno
        except (AttachError, UnsupportedError):
            raise
        except OSError as e:
            link, number = ffi.NULL, e.errno or 0
    if isinstance(link, Link):
        return link
    if link != ffi.NULL:
        return Link(link, on)
    beyond = number == errno.EACCES and "event" in full and " perf event: " not in log.text
    why, fix = _beyond_record(full) if beyond else _explain(number, section, type, full)
    where = show_target(target) if target else "where its section says"
    raise AttachError(
        f"cannot attach {on}", on=where, why=why, details=log.text or None, fix=fix, errno=as_errno(number)
    )


def _beyond_record(target: Target) -> Explanation:
    """Explains that the target is right, but the program reads more than the tracepoint gives it."""
    place = f"{target['category']}/{target['event']}"
    return Explanation(
        "the program reads beyond the end of the tracepoint's record",
        f"compare its struct with /sys/kernel/tracing/events/{place}/format, or use struct "
        "trace_event_raw_… of vmlinux.h",
    )


def _taken(number: int, type: Any) -> Explanation | None:
    """Explains why no more programs can be attached to the function that the program was loaded for."""
    if number == errno.EBUSY and type is ProgramType.EXT:
        return Explanation(
            "another freplace program replaces that function already, or a program traces it",
            "close the link of that one first: a function has one replacement at a time",
        )
    if number == errno.EBUSY:
        return Explanation(
            "this program is attached to its function already, or another fmod_ret or freplace program keeps "
            "others away",
            "close its link first; for a second link, load the object once more",
        )
    if number == errno.ENOENT and type is not ProgramType.EXT:
        return Explanation(
            "this kernel attaches a loaded program to its function once, and this one was attached before",
            "load the object once more",
        )
    if number == errno.E2BIG:
        return Explanation(
            "as many programs are attached to that function as it can have (BPF_MAX_TRAMP_LINKS, 38)",
            "close some of their links, or combine several of the programs into one",
        )
    return None


def _explain(number: int, section: str, type: Any, target: Target) -> Explanation:
    """Explains why libbpf or the kernel refused to attach a tracing program."""
    if number in (errno.EOPNOTSUPP, 0) and not target:
        return no_target(type, section)
    if number == errno.EINVAL and not target and kind(section) in ("uprobe", "uretprobe") and "/" in section:
        name = section.partition("/")[2]
        return Explanation(
            f"the section {section!r} names a function but no binary",
            f'write SEC("{section.partition("/")[0]}//usr/bin/PROGRAM:{name}"), or name the binary: '
            f'program.attach(binary="/usr/bin/PROGRAM", function="{name}")',
        )
    if number == errno.EINVAL and not target and kind(section) in ("tp", "tracepoint") and "/" in section:
        return explain_no_category(section)
    if number == errno.EBADF and section.startswith("iter"):
        return Explanation(
            "this iterator runs over the elements of a map, and no map is given",
            "give the map: program.attach(map=obj.maps.NAME)",
        )
    if type in _TRAMPOLINE and (taken := _taken(number, type)):
        return taken
    if number in (errno.EPERM, errno.EACCES):
        return Explanation(reason(number), refusal_hint(str(type)))
    if number in (errno.EINVAL, errno.EOPNOTSUPP) and (of_many := explain_many(section, target)):
        return of_many
    missing = explain_missing(number, target)
    if missing:
        return missing
    if number in (errno.EINVAL, ENOTSUPP, errno.EOPNOTSUPP) and target.get("cookie"):
        return Explanation(
            f"{reason(number)}; this kernel may have no cookies here",
            "attach it without cookie=; cookies: Linux 5.15 for perf events, kprobes, uprobes, tracepoints, "
            f"6.0 for fentry, 6.10 for raw tracepoints; this is {os.uname().release}",
        )
    if number in (errno.EINVAL, errno.EOPNOTSUPP) and "functions" in target:
        return Explanation(
            f"{reason(number)}; this kernel may have no links to many functions",
            (
                "attach to one function after the other; kprobe.multi: Linux 5.18, uprobe.multi: 6.6, "
                "kprobe.session: 6.10, uprobe.session: 6.13"
            ),
        )
    return Explanation(reason(number), None)
