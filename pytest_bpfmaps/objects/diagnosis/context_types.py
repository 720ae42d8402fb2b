"""Finds programs whose parameter is the context struct of another type of program.

The verifier only knows the offsets that a program reads. The fields of the other struct have offsets of their
own, so the program reads other fields of its context, and mostly without an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from pytest_bpfmaps.btf import Btf, BtfType, Codecs, Kind
from pytest_bpfmaps.compiler.portability import Finding
from pytest_bpfmaps.errors import ContextTypeWarning, Explanation
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.objects.diagnosis.source_lines import program_line
from pytest_bpfmaps.programs.program_spec import ProgramSpec

# From <linux/bpf_types.h>. Programs of other types have no struct of their own, or any.
_STRUCTS = {
    **dict.fromkeys(
        (
            *("SOCKET_FILTER", "SCHED_CLS", "SCHED_ACT", "CGROUP_SKB", "LWT_IN", "LWT_OUT", "LWT_XMIT"),
            *("SK_SKB", "LWT_SEG6LOCAL", "FLOW_DISSECTOR"),
        ),
        "__sk_buff",
    ),
    "XDP": "xdp_md",
    "CGROUP_SOCK": "bpf_sock",
    "CGROUP_SOCK_ADDR": "bpf_sock_addr",
    "SOCK_OPS": "bpf_sock_ops",
    "SK_MSG": "sk_msg_md",
    "KPROBE": "pt_regs",
    "PERF_EVENT": "bpf_perf_event_data",
    "RAW_TRACEPOINT": "bpf_raw_tracepoint_args",
    "RAW_TRACEPOINT_WRITABLE": "bpf_raw_tracepoint_args",
    "CGROUP_DEVICE": "bpf_cgroup_dev_ctx",
    "CGROUP_SYSCTL": "bpf_sysctl",
    "CGROUP_SOCKOPT": "bpf_sockopt",
    "SK_REUSEPORT": "sk_reuseport_md",
    "SK_LOOKUP": "bpf_sk_lookup",
    "NETFILTER": "bpf_nf_ctx",
}
_CONTEXTS = {*_STRUCTS.values(), "user_pt_regs"}
_KERNELS_OWN = {"sk_buff", "xdp_buff", "sk_msg", "sock", "task_struct"}  # mistaken for a context
_EVENT = "trace_event_raw_"
_ARGUMENTS = "unsigned long long *, as BPF_PROG() does it"


def wrong_contexts(
    path: Path, name: str, programs: Iterable[ProgramSpec], codecs: Codecs | None
) -> Iterator[Finding]:
    """Yields a finding for each program that is to be loaded and declares the context of another type.

    `path` is the object's file, and `name` its name in messages. It finds nothing in an object without BTF.
    """
    for program in programs if codecs is not None else ():
        if program.autoload and (found := explain_context(path, program, codecs)):
            line = program_line(path, program.name)
            place = (name, 0) if line is None else (str(line.file), line.number)
            yield Finding(*place, f"{program}: {found.why}", found.fix or "", ContextTypeWarning)


def explain_context(path: Path, program: ProgramSpec, codecs: Codecs | None) -> Explanation | None:
    """Explains that a program declares the context of another type; None if it does not."""
    functions = {} if codecs is None else _functions(codecs.btf)
    declared = _declared(functions[program.name]) if program.name in functions else None
    found = _mistake(program.type, declared) if declared else None
    if found is None or (declared == _ARGUMENTS and not _names_arguments(path, program.name)):
        return None
    right, fix = found
    why = (
        f"its parameter is declared as {declared}, but the context of programs of type {program.type} is "
        f"{right}, so it reads other fields than it names"
    )
    return Explanation(why, fix)


def _names_arguments(path: Path, name: str) -> bool:
    """Returns whether the source declares a program as ``BPF_PROG(name, argument)``."""
    line = program_line(path, name)
    return line is not None and re.search(rf"\bBPF_PROG\(\s*{re.escape(name)}\s*,", line.text) is not None


@lru_cache(maxsize=2)  # each program of an object asks
def _functions(btf: Btf) -> dict[str, BtfType]:
    return {each.name: each for each in btf.of_kind(Kind.FUNC)}


def _mistake(type: ProgramType | int, declared: str) -> tuple[str, str] | None:
    """Returns what the context is, and what to write; None if the declared one may be right."""
    struct = declared.removeprefix("struct ").removesuffix(" *").partition("___")[0]
    known = struct in _CONTEXTS or struct in _KERNELS_OWN or struct.startswith(_EVENT)
    if type == ProgramType.TRACEPOINT:
        event = "the event's own struct"
        write = f"declare it as struct {_EVENT}EVENT * of the event"
        return (event, write) if known and not struct.startswith(_EVENT) else None
    expected = _STRUCTS.get(type.name) if isinstance(type, ProgramType) else None
    if expected is None or struct == expected or (expected, struct) == ("pt_regs", "user_pt_regs"):
        return None
    if declared == _ARGUMENTS:
        write = "write BPF_KPROBE(), or BPF_UPROBE(), in place of BPF_PROG()"
        return (f"struct {expected}", write) if type == ProgramType.KPROBE else None
    return (f"struct {expected}", f"declare it as struct {expected} *") if known else None


def _declared(function: BtfType) -> str | None:
    """Returns the type of a program's only parameter, ``struct xdp_md *``; None for another kind of type."""
    parameters = function.target.parameters()
    pointer = function.btf.resolve(parameters[0]) if len(parameters) == 1 and parameters[0] else None
    if pointer is None or pointer.kind is not Kind.PTR or not pointer.size_or_type:
        return None
    pointed = function.btf.resolve(pointer.size_or_type)
    if pointed.kind is Kind.INT and pointed.name == "unsigned long long":
        return _ARGUMENTS
    return f"struct {pointed.name} *" if pointed.kind in (Kind.STRUCT, Kind.FWD) and pointed.name else None
