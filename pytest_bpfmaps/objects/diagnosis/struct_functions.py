"""Explains refused structs of functions (struct_ops), and programs that are no function of one."""

from __future__ import annotations

import re
from collections.abc import Callable

from pytest_bpfmaps.errors import ENOTSUPP, Explanation
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.libbpf import version
from pytest_bpfmaps.objects.attempt import Attempt
from pytest_bpfmaps.objects.diagnosis.program_arrays import used_names
from pytest_bpfmaps.programs.program_spec import ProgramSpec

_LINK = ".struct_ops.link"
_TYPE_0 = "attach_btf_id 0 is not a supported struct"
_FIRST = (1, 2)  # the first libbpf that reads that section


def explain_no_struct(
    attempt: Attempt, program: ProgramSpec, number: int, verifier: str = ""
) -> Explanation | None:
    """Explains why a struct_ops program belongs to no struct; None if it does, or for another error.

    The kernel takes a program only as a certain function of a certain struct. It refuses any other with
    ENOTSUPP, and says nothing in `verifier`, or names a type 0. libbpf from 1.5 on does not load such a
    program. Source: ``check_struct_ops_btf_id`` in kernel/bpf/verifier.c.
    """
    if program.type is not ProgramType.STRUCT_OPS or not (number == ENOTSUPP or _TYPE_0 in verifier):
        return None
    if program.name in used_names(attempt.path, ".struct_ops"):
        return None
    if version() < _FIRST and program.name in used_names(attempt.path, _LINK):
        return Explanation(
            f'its struct is in SEC("{_LINK}"), which libbpf {".".join(map(str, version()))} does not read',
            'write SEC(".struct_ops") before the struct, or use libbpf 1.2 or later',
        )
    if program.name in used_names(attempt.path, _LINK):
        return None
    return Explanation(
        "the kernel takes a struct_ops program only as a function of a struct, and no struct has it",
        f'set it in one: SEC(".struct_ops") struct … = {{ .MEMBER = (void *){program.name}, … }}; '
        f"or leave it out: bpf.load(…, programs={{{program.name!r}: {{'autoload': False}}}})",
    )


def _of_two_members(found: re.Match[str]) -> Explanation:
    program, member = found["opened"] or found["loaded"], found["member"] or found["name"]
    return Explanation(
        f"the program {program} is a function of a struct already, and can't be {member}, too",
        f"write another program for .{member}",
    )


def _no_member(found: re.Match[str]) -> Explanation:
    member, macro = found[2], f"HAS_{found[2].upper()}"
    return Explanation(
        f"the struct of {found[1]} has the member {member}, which the struct of Linux {release()} lacks",
        # libbpf says the same of both, and an agent's libbpf may be older than this one
        f"if nothing sets {member}: libbpf before 1.5 refuses it, too; declare the struct with only the "
        'members that are set (vmlinux.h: "#define STRUCT other" before its #include, "#undef STRUCT" after '
        f"it). If it is set, put {member} and its program between #ifdef {macro} and #endif, and where the "
        f'kernel has it: bpf.load(…, defines={{"{macro}": 1}}); or mark the test bpf_kernels(">=…")',
    )


def _no_struct_ops(found: re.Match[str]) -> Explanation:
    return Explanation(
        f'the struct of {found[1]} has the program {found[2]}, which is none of SEC("struct_ops") for libbpf '
        + ".".join(map(str, version())),
        f'write SEC("struct_ops") before {found[2]}; SEC("struct_ops.s") needs libbpf 1.2 or later',
    )


STRUCT_OPS: list[tuple[str, Callable[[re.Match[str]], Explanation]]] = [
    (
        r"cannot use prog (?P<opened>\w+) in sec .* for func ptr (?P<member>\w+)"
        r"|func ptr (?P<name>\w+): invalid reuse of prog (?P<loaded>\w+)",
        _of_two_members,
    ),
    (r"struct_ops init_kern (\S+): Cannot find member (\w+) in kernel BTF", _no_member),
    (r"struct_ops reloc (\S+): prog (\S+) is not struct_ops BPF program", _no_struct_ops),
]
"""Patterns of libbpf's log, with the functions that explain them."""
