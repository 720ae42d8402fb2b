"""Explains that a struct_ops program is no function of a struct that libbpf read."""

from __future__ import annotations

from pytest_bpfmaps.errors import ENOTSUPP, Explanation
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.libbpf import version
from pytest_bpfmaps.objects.attempt import Attempt
from pytest_bpfmaps.objects.diagnosis.program_arrays import used_names
from pytest_bpfmaps.programs.program_spec import ProgramSpec

_LINK = ".struct_ops.link"
_FIRST = (1, 2)  # the first libbpf that reads that section


def explain_no_struct(attempt: Attempt, program: ProgramSpec, number: int) -> Explanation | None:
    """Explains why a struct_ops program belongs to no struct; None if it does, or for another error.

    The kernel takes a program only as a certain function of a certain struct, and says only ENOTSUPP for a
    program without. libbpf from 1.5 on does not load such a program. Source: ``check_struct_ops_btf_id`` in
    kernel/bpf/verifier.c.
    """
    if number != ENOTSUPP or program.type is not ProgramType.STRUCT_OPS:
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
