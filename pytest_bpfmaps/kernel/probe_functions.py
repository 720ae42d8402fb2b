"""Finds out whether any program may call a helper or a kfunc, by loading programs that call it.

The kernel's BTF also names helpers that the configuration leaves out, and functions that are not kfuncs, or
became kfuncs only later. The verifier's answer to a call distinguishes them.
"""

from __future__ import annotations

import errno
import os
import re
from functools import cache

from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.probe_programs import (
    EXIT,
    SLEEPABLE,
    Trial,
    Verdict,
    instruction,
    trial_of,
    try_program,
)
from pytest_bpfmaps.kernel.vmlinux_btf import (
    FUNC,
    STRUCT,
    TYPEDEF,
    in_modules,
    marked_kfunc,
    member_index,
    type_id,
    vmlinux_btf,
)

_CALL, _KFUNC = 0x85, 2  # BPF_JMP | BPF_CALL, BPF_PSEUDO_KFUNC_CALL
_NOT_HERE = re.compile(
    r"unknown func|invalid func|cannot use helper|calling kernel function|reserved fields|"
    r"is not a function|not allowed in probe|JIT"
)
_REACHED = "(85) call "
_SPECIAL = (ProgramType.EXT, ProgramType.STRUCT_OPS, ProgramType.UNSPEC)
_CALLERS = (
    *(trial_of(t) for t in ProgramType if t not in _SPECIAL),
    # the functions that a program may call also depend on its target
    Trial(ProgramType.TRACING, 23, target=("btf_trace_sched_switch", TYPEDEF)),  # BPF_TRACE_RAW_TP
    Trial(ProgramType.TRACING, 25, target=("bpf_fentry_test1", FUNC)),  # BPF_TRACE_FEXIT
    Trial(ProgramType.TRACING, 24, target=("filp_close", FUNC)),  # Linux 5.10 has bpf_d_path() only there
    Trial(ProgramType.TRACING, 28, target=("bpf_iter_task", FUNC)),  # BPF_TRACE_ITER
    Trial(ProgramType.LSM, 27, SLEEPABLE, ("bpf_lsm_bprm_committed_creds", FUNC)),  # BPF_LSM_MAC
    Trial(ProgramType.LSM, 43, target=("bpf_lsm_socket_bind", FUNC)),  # BPF_LSM_CGROUP
    Trial(ProgramType.KPROBE, flags=SLEEPABLE),
    Trial(ProgramType.SK_REUSEPORT, 39),  # BPF_SK_REUSEPORT_SELECT
)
# (a struct that programs may implement, one of its functions)
_STRUCTS = (("tcp_congestion_ops", "ssthresh"), ("sched_ext_ops", "enqueue"), ("Qdisc_ops", "enqueue"))


def may_call_helper(number: int) -> bool | None:
    """Returns whether any type of program may call a helper, by its number.

    None if the types that this process can load may not call it, and it can't load other types.
    """
    return _callable(instruction(_CALL, value=number), ())


def is_allowed(number: int, caller: Trial) -> bool:
    """Returns whether such a program may call a helper, by its number.

    False also where this process can't load such programs.
    """
    return _allows(try_program(caller, instruction(_CALL, value=number) + EXIT))


def types_that_call(number: int) -> list[ProgramType]:
    """Returns the types of program that may call a helper, by its number, in the order of their numbers.

    It lacks types that this process can't load.
    """
    return _types_with(instruction(_CALL, value=number), ())


def types_that_call_kfunc(name: str) -> list[ProgramType]:
    """Returns the types of program that may call a function of the kernel or of a module, as above."""
    number = type_id(vmlinux_btf(), name, FUNC)
    if number:
        return _types_with(instruction(_CALL, src=_KFUNC, value=number), ())
    for number, fd in in_modules(name, FUNC):
        try:
            return _types_with(instruction(_CALL, src=_KFUNC, offset=1, value=number), (fd,))
        finally:
            os.close(fd)
    return []


def _types_with(call: bytes, modules: tuple[int, ...]) -> list[ProgramType]:
    def allowing(callers: tuple[Trial, ...]) -> list[ProgramType]:
        return sorted({each.type for each in callers if _allows(try_program(each, call + EXIT, modules))})

    return allowing(_CALLERS) or allowing(_implementations())


def may_call_kfunc(name: str) -> bool | None:
    """Returns whether some type of program may call functions of the kernel or of a module (Linux 5.13).

    None if the types that this process can load may not call it, and it can't load other types.
    """
    marked = marked_kfunc(vmlinux_btf(), name)
    if marked:
        return True
    number = type_id(vmlinux_btf(), name, FUNC)
    if number:
        return False if marked is False else _callable(instruction(_CALL, src=_KFUNC, value=number), ())
    for number, fd in in_modules(name, FUNC):
        try:
            return _callable(instruction(_CALL, src=_KFUNC, offset=1, value=number), (fd,))
        finally:
            os.close(fd)
    return False


def _callable(call: bytes, modules: tuple[int, ...]) -> bool | None:
    denied = False
    for caller in (*_CALLERS, *_implementations()):
        verdict = try_program(caller, call + EXIT, modules)
        if _allows(verdict):
            return True
        denied |= verdict.errno in (errno.EPERM, errno.EACCES) and _REACHED not in verdict.log
    return None if denied else False


def _allows(verdict: Verdict) -> bool:
    # if the verifier's log has the call, the call itself is allowed, and only its arguments are wrong
    return not verdict.errno or (_REACHED in verdict.log and not _NOT_HERE.search(verdict.log))


@cache
def _implementations() -> tuple[Trial, ...]:
    """Returns programs that are functions of a struct; their attach type is the index of the member."""
    places = ((name, member_index(vmlinux_btf(), name, member)) for name, member in _STRUCTS)
    return tuple(Trial(ProgramType.STRUCT_OPS, i, target=(n, STRUCT)) for n, i in places if i is not None)
