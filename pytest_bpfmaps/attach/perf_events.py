"""Attaches to perf events: to events that this module opens, or to an event that the caller has open."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.attach.links import Link
from pytest_bpfmaps.attach.uprobes import process_id
from pytest_bpfmaps.errors import AttachError, closest
from pytest_bpfmaps.kernel.cpus import ONLINE, online_cpus
from pytest_bpfmaps.libbpf import ffi, lib, opts
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.libbpf.syscalls import perf_event_open

TYPES = {"hardware": 0, "software": 1, "tracepoint": 2, "hw_cache": 3, "raw": 4, "breakpoint": 5}
"""``enum perf_type_id``."""

EVENTS = {
    **{name: (0, number) for number, name in enumerate(
        ("cpu_cycles", "instructions", "cache_references", "cache_misses", "branch_instructions",
         "branch_misses", "bus_cycles", "stalled_cycles_frontend", "stalled_cycles_backend", "ref_cpu_cycles")
    )},
    **{name: (1, number) for number, name in enumerate(
        ("cpu_clock", "task_clock", "page_faults", "context_switches", "cpu_migrations", "page_faults_min",
         "page_faults_maj", "alignment_faults", "emulation_faults", "dummy", "bpf_output", "cgroup_switches")
    )},
}  # fmt: skip
"""(type, config) by the names ``PERF_COUNT_HW_*`` and ``PERF_COUNT_SW_*`` in lower case."""

FIELDS = frozenset({"type", "config", "frequency", "period", "pid", "cpu"})
_FREQUENCY = 1 << 10  # perf_event_attr.freq


class PerfEventLink(Link):
    """Keeps a program attached to perf events that were opened for it, on one or several CPUs."""

    def __init__(self, handles: list[Any], on: str) -> None:
        super().__init__(handles[0], on)
        self._others = [Link(handle, on) for handle in handles[1:]]

    def pin(self, path: str | Path) -> None:
        """Pins the link; raises `AttachError` if there is a link for each of several CPUs."""
        if self._others:
            raise AttachError(
                "cannot pin the link of",
                on=self._on,
                why=f"there is one for each of {len(self._others) + 1} CPUs",
                fix="attach it to one CPU or process: attach(perf_event=…, cpu=0)",
                errno=errno.EINVAL,
            )
        super().pin(path)

    def close(self) -> None:
        others, self._others = self._others, []
        for each in others:
            each.close()
        super().close()


def to_perf_event(handle: Any, target: Target, on: str) -> Any:
    """Attaches to a perf event: to its descriptor, or to a described event, which is opened here.

    An event without process and CPU is opened on all CPUs.
    """
    event = target["perf_event"]
    if isinstance(event, int):
        return _attach(handle, event, target)
    wanted = _describe(event, target, on)
    pid = process_id(wanted["pid"])
    cpus = [wanted["cpu"]] if wanted["cpu"] is not None else online_cpus() if pid < 0 else [-1]
    made: list[Any] = []
    try:
        for cpu in cpus:
            fd = _open(wanted, pid, cpu, on)
            link = _attach(handle, fd, target)
            if link == ffi.NULL:
                number = ffi.errno
                os.close(fd)  # no link was made that owns the descriptor
                raise OSError(number, os.strerror(number))
            made.append(link)
    except BaseException:
        for each in made:
            lib.bpf_link__destroy(each)
        raise
    return PerfEventLink(made, on)


def _open(wanted: Target, pid: int, cpu: int, on: str) -> int:
    attributes = ffi.new(
        "struct perf_event_attr *",
        {
            "type": wanted["type"],
            "size": ffi.sizeof("struct perf_event_attr"),
            "config": wanted["config"],
            "sample_period": wanted["frequency"] or wanted["period"] or 1,
            "_flags": _FREQUENCY if wanted["frequency"] else 0,
        },
    )
    try:
        return perf_event_open(attributes, pid, cpu)
    except OSError as e:
        raise _refused(e.errno or 0, wanted, on) from None


def _attach(handle: Any, fd: int, target: Target) -> Any:
    settings = opts("bpf_perf_event_opts", bpf_cookie=target.get("cookie", 0))
    return lib.bpf_program__attach_perf_event_opts(handle, fd, settings)


def _describe(event: Any, target: Target, on: str) -> Target:
    """Returns all fields of an event, from its name or a mapping; keywords beside it take precedence."""
    if not isinstance(event, Mapping | str):
        fix = 'give a name, a mapping, or a descriptor: attach(perf_event="cpu_clock", frequency=100)'
        raise _wrong(on, f"it is {type(event).__name__}", fix)
    given: Target = {"config": event} if isinstance(event, str) else dict(event)
    if unknown := set(given) - FIELDS:
        raise _wrong(on, f"no field {sorted(unknown)[0]!r}", closest(sorted(unknown)[0], FIELDS))
    given |= {name: target[name] for name in FIELDS & target.keys()}
    wanted = dict.fromkeys(FIELDS) | given
    if isinstance(wanted["type"], str):
        if wanted["type"] not in TYPES:
            raise _wrong(on, f"no type {wanted['type']!r}", closest(wanted["type"], TYPES))
        wanted["type"] = TYPES[wanted["type"]]
    if isinstance(wanted["config"], str):
        name = wanted["config"].lower().replace("-", "_")
        if name not in EVENTS:
            raise _wrong(on, f"no perf event {wanted['config']!r}", closest(name, EVENTS))
        wanted["type"], wanted["config"] = EVENTS[name]
    if wanted["type"] is None or wanted["config"] is None:
        raise _wrong(on, "no event is named", 'attach(perf_event="cpu_clock", frequency=100)')
    if wanted["frequency"] and wanted["period"]:
        raise _wrong(on, "it has a frequency and a period", "give one of them")
    return wanted


def _refused(number: int, wanted: Target, on: str) -> AttachError:
    why, fix = reason(number), None
    if number in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV) and wanted["type"] in (0, 3, 4):
        why = "this machine does not count it: most virtual machines have no hardware counters"
        fix = 'use a software event: attach(perf_event="cpu_clock", frequency=100)'
    elif number == errno.EACCES:
        fix = "it needs CAP_PERFMON, or a lower kernel.perf_event_paranoid"
    elif number == errno.ESRCH:
        why = f"there is no process {wanted['pid']}"
    elif number in (errno.EINVAL, errno.ENODEV) and wanted["cpu"] not in (None, -1, *online_cpus()):
        why, fix = f"there is no CPU {wanted['cpu']} that runs", f"CPUs: {ONLINE.read_text().strip()}"
    elif number == errno.EINVAL and wanted["frequency"]:
        fix = "the frequency must not be above kernel.perf_event_max_sample_rate"
    return AttachError(
        f"cannot open a perf event for {on}",
        on="with " + ", ".join(f"{n}={v!r}" for n, v in sorted(wanted.items()) if v is not None),
        why=why,
        fix=fix,
        errno=number,
    )


def _wrong(on: str, why: str, fix: str) -> AttachError:
    return AttachError(f"cannot attach {on}", on="to a perf event", why=why, fix=fix, errno=errno.EINVAL)
