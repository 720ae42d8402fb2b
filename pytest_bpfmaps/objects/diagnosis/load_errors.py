"""Explains a refused load: makes a message of error numbers, libbpf's log and the verifier's log."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path

from pytest_bpfmaps.attach.missing_targets import explain_no_types_of
from pytest_bpfmaps.attach.section_targets import kind
from pytest_bpfmaps.btf.line_info import source_lines
from pytest_bpfmaps.btf.types import Kind
from pytest_bpfmaps.elf.editor import STT_FUNC, Elf
from pytest_bpfmaps.errors import Explanation, LoadError, VerifierError
from pytest_bpfmaps.kernel.attach_points import NO_ATTACH_POINT
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.feature_releases import came_with
from pytest_bpfmaps.kernel.features import probe
from pytest_bpfmaps.kernel.privileges import refusal_hint
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.objects.attempt import Attempt
from pytest_bpfmaps.objects.diagnosis.allowed_callers import explain_kfunc, explain_path
from pytest_bpfmaps.objects.diagnosis.context_fields import fix_for_field
from pytest_bpfmaps.objects.diagnosis.context_types import explain_context
from pytest_bpfmaps.objects.diagnosis.full_verifier_log import log_of_rejected
from pytest_bpfmaps.objects.diagnosis.libbpf_log import (
    NO_SECTION,
    absent_weak,
    explain_log,
    refused_map,
)
from pytest_bpfmaps.objects.diagnosis.open_errors import told_by_libbpf
from pytest_bpfmaps.objects.diagnosis.program_arrays import explain_program_array
from pytest_bpfmaps.objects.diagnosis.refused_btf import explain_refused_btf
from pytest_bpfmaps.objects.diagnosis.refused_helpers import refused_helper
from pytest_bpfmaps.objects.diagnosis.relocations import explain_relocation, missing_name
from pytest_bpfmaps.objects.diagnosis.source_lines import (
    line_of_call,
    line_of_extern,
    line_of_map,
    line_of_program,
    line_of_section,
    use_of,
)
from pytest_bpfmaps.objects.diagnosis.struct_functions import explain_no_struct
from pytest_bpfmaps.objects.diagnosis.unfilled_pointers import explain_pointer
from pytest_bpfmaps.programs.context import may_be_program, refused_field, seen_context
from pytest_bpfmaps.programs.program import instructions_of
from pytest_bpfmaps.programs.program_spec import ProgramSpec
from pytest_bpfmaps.verifier import Rejection, advise, advise_closer, parse_log
from pytest_bpfmaps.verifier.log_buffers import LogBuffer

_FAILED_PROGRAM = re.compile(r"^prog '([^']+)': ", re.MULTILINE)
_NO_TYPE = re.compile(r"failed to find kernel BTF type ID of '([^']+)'")
_NO_FUNCTION = re.compile(r"extern \(func ksym\) '([^']+)'")
_NO_VARIABLE = re.compile(r"extern (?:\(kcfg\) )?'(\w+)'(?: \(strong\): not resolved|: value '.* implies )")
_NEEDS_TYPES = "has to have BTF in order to use"
_NO_CPUS = "Failed to open cpu mask file"  # no map is at fault
_UNTYPED = re.compile(r"[Mm]ap '(\w+)' has to have BTF in order to use (\w+)")
_MOST_SAID = 6
_MOVE = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_MOST_PARAMETERS = 5
_DEVICE_BOUND = 64  # BPF_F_XDP_DEV_BOUND_ONLY
_PARSED = 1 << 18  # characters from the end of a log; the registers that matter are near its end


def explain_no_program(attempt: Attempt) -> LoadError | None:
    """Explains that a program has no section of its own, in an object without any program; else None.

    libbpf treats such a function as a subprogram that nobody calls, and loads nothing. A function that takes
    no context really is a subprogram: another object may be linked with it.
    """
    try:
        elf = Elf(attempt.path.read_bytes())
        text = elf.section(".text")
        functions = [s.name for s in elf.symbols() if text and s.section == text.index and s.type == STT_FUNC]
    except ValueError:
        return None
    program = next((name for name in functions if may_be_program(name, attempt.codecs)), None)
    if program is None:
        return None
    why, fix = NO_SECTION
    return LoadError(
        "cannot load",
        on=f"{attempt.name}: function {program!r}",
        why=why,
        details=_indent(line_of_program(attempt.path, program)) or None,
        fix=fix,
        errno=errno.EINVAL,
    )


def explain_load(attempt: Attempt, number: int, log: str, logs: Mapping[str, LogBuffer]) -> LoadError:
    """Returns the error for an object that could not be loaded.

    `log` is libbpf's log, and `logs` has each program's verifier log.
    """
    failed = _FAILED_PROGRAM.search(log)
    program = attempt.programs[failed[1]] if failed and failed[1] in attempt.programs else None
    said = logs[program.name].text if program else ""
    if program and parse_log(said).complaint:
        return _rejected(attempt, program, number, said, log)
    on = f"{attempt.name}: {program}" if program else attempt.name
    refused = None if program or _NO_CPUS in log else refused_map(attempt, log)
    if refused:
        on = f"{attempt.name}: map {refused[0]!r}"
    no_type = _NO_TYPE.search(log)
    if no_type and program:
        answer = explain_no_types_of(kind(program.section), no_type[1])
        others = [p.name for p in attempt.programs if p.autoload and p.name != program.name]
        if others:
            leave_out = f"or leave it out: bpf.load(…, programs={others})"
            answer = Explanation(answer.why, f"{answer.fix} {leave_out}")
    else:
        answer = refused[1] if refused else _explain_log(attempt, program, number, log)
    why, fix = answer
    details = _indent("\n".join(told_by_libbpf(log, _declared_at(attempt, program, refused, log))))
    error = LoadError("cannot load", on=on, why=why, details=details or None, fix=fix, errno=number)
    error.section = program.section if program else None
    return error


def _declared_at(
    attempt: Attempt, program: ProgramSpec | None, refused: tuple[str, object] | None, log: str
) -> str:
    """Returns the C line that caused the refusal."""
    if refused:
        return line_of_map(attempt.path, refused[0])
    if function := _NO_FUNCTION.search(log):
        return line_of_call(attempt.path, function[1])
    if variable := _NO_VARIABLE.search(log):
        return line_of_extern(attempt.path, variable[1])
    if program:
        return line_of_section(attempt.path, program.section) or line_of_program(attempt.path, program.name)
    return ""


def _explain_log(attempt: Attempt, program: ProgramSpec | None, number: int, log: str) -> Explanation:
    found = explain_log(log)
    if found:
        return found
    type = program.type if program else next((p.type for p in attempt.programs), "")
    if number in (errno.EPERM, errno.EACCES):
        return Explanation(reason(number), refusal_hint(str(type)))
    if program and program.ifindex:
        return _for_interface(program, number)
    if number == errno.EFAULT and (name := _of_many_parameters(attempt)):
        return Explanation(
            f"the function {name!r} has more than {_MOST_PARAMETERS} parameters, and this kernel takes no "
            "more, although clang left those out that are not used",
            "remove the parameters that are not used; or mark it static __always_inline",
        )
    if program is None:
        return Explanation(reason(number), None)
    shared = explain_program_array(attempt, program) if number == errno.EINVAL else None
    return (
        shared
        or refused_type(program.type)
        or _refused_buffers(program.section)
        or refused_attach_point(program.section)
        or explain_no_struct(attempt, program, number)
        or Explanation(reason(number), None)
    )


def refused_attach_point(section: str) -> Explanation | None:
    """Explains that this kernel does not know the attach point of a section; None if it knows it."""
    section = section.lstrip("?")
    if "/" not in section.rstrip("/") or probe("attach", section.rstrip("/")).why != NO_ATTACH_POINT:
        return None
    return Explanation(
        came_with(f'Linux {release()} has no attach point for SEC("{section}")', f"attach point {section}"),
        f'mark the test bpf_requires("{section}")',
    )


def _refused_buffers(section: str) -> Explanation | None:
    """Explains that this kernel has no XDP programs for packets in several buffers; None if it has them."""
    if kind(section) != "xdp.frags" or probe("helper", "bpf_xdp_get_buff_len"):
        return None
    return Explanation(
        f"Linux {release()} has no XDP programs for packets in several buffers (they came with 5.18)",
        'write SEC("xdp"), or mark the test bpf_requires("bpf_xdp_get_buff_len"), which came with them',
    )


def _of_many_parameters(attempt: Attempt) -> str | None:
    """Returns a function of the object with more parameters than BPF has registers for."""
    types = () if attempt.codecs is None else attempt.codecs.btf
    return next(
        (each.name for each in types if each.kind is Kind.FUNC and each.target.vlen > _MOST_PARAMETERS), None
    )


def _for_interface(program: ProgramSpec, number: int) -> Explanation:
    if not program.flags & _DEVICE_BOUND:
        why = f"the driver of interface {program.ifindex} does not run programs in its hardware"
        fix = f"add {_DEVICE_BOUND}, BPF_F_XDP_DEV_BOUND_ONLY, to its flags, so that it runs on the CPU"
    else:
        why = f"this thread's network namespace has no interface {program.ifindex} whose driver has metadata"
        fix = "load inside the interface's namespace; it may be a veth: with netns.enter(): bpf.load(…)"
    return Explanation(f"{why}: {reason(number)}", fix)


def _rejected(
    attempt: Attempt, program: ProgramSpec, number: int, said: str, of_libbpf: str
) -> VerifierError:
    log = log_of_rejected(attempt, program.name, said)
    found = parse_log(log[-_PARSED:])
    untyped = explain_refused_btf(of_libbpf) if _NEEDS_TYPES in found.text else None
    no_struct = explain_no_struct(attempt, program, number, found.text)
    advice = untyped or no_struct or _advice(found, attempt, program)
    last = found.complaint[-1] if found.complaint else reason(number)
    return VerifierError(
        "the verifier rejected",
        on=f"program {program.name!r} of {attempt.name}",
        why=advice.why if advice else last,
        details=_indent("\n".join(_rejected_at(found, attempt.path, program))),
        fix=advice.fix if advice else "the whole log is in the error's log attribute",
        errno=number,
        log=log,
    )


def _advice(found: Rejection, attempt: Attempt, program: ProgramSpec) -> Explanation | None:
    """Returns the advice: what this kernel lacks comes before the general sentence, because it is exact."""
    known = (
        explain_relocation(found.text)
        or _arena_code(found, program)
        or absent_weak(found, attempt.path)
        or explain_pointer(found, attempt.path)
        or explain_path(found)
        or explain_kfunc(found)
        or _without_types(found, attempt)
        or refused_helper(found.text, found.source, program.type)
    )
    general = advise(found.text)
    if known is None or (general is not None and "may sleep" in general.why):
        return _closer(found, attempt, program, general) or found.explained
    return Explanation(known[0], known[1] or "")


def _arena_code(found: Rejection, program: ProgramSpec) -> Explanation | None:
    """Explains that the program has pointers into an arena, and the kernel has no arenas; else None."""
    if "uses reserved fields" not in found.text:
        return None
    raw = instructions_of(program.handle)
    if not any(raw[at] == _MOVE and raw[at + 2 : at + 4] == b"\1\0" for at in range(0, len(raw), 8)):
        return None  # addr_space_cast is a move whose offset is 1
    return Explanation(
        came_with(
            f"the program has pointers into an arena, and Linux {release()} has none", "map type arena"
        ),
        'mark the test bpf_requires("arena"), or choose another kernel: pytest --bpf-kernel=NAME',
    )


def _without_types(found: Rejection, attempt: Attempt) -> Explanation | None:
    """Explains that a map whose values have a timer or a lock is declared without types; else None."""
    named = _UNTYPED.search(found.text)
    if named is None or named[1] not in attempt.maps:
        return None
    declared = attempt.maps[named[1]].declared
    if declared.key and declared.value:
        return None
    return Explanation(
        f"the map {named[1]!r} is declared with sizes and without types, so the kernel does not know that "
        f"its values hold a {named[2]}",
        "declare the types: __type(key, …); and __type(value, struct …); instead of key_size and value_size",
    )


def _closer(
    found: Rejection, attempt: Attempt, program: ProgramSpec, general: Explanation | None
) -> Explanation | None:
    if closer := advise_closer(found):
        return closer
    if general is None:
        return None
    if "invalid bpf_context access" in found.text and (
        wrong := explain_context(attempt.path, program, attempt.codecs)
    ):
        return wrong
    codec = seen_context(program.type, program.name, attempt.codecs)
    field = refused_field(found.text, found.instruction, program.type, codec)
    if not field:
        return general
    if "outside" in field:
        return Explanation(field, "check the offset or index, and the struct that the parameter points to")
    if " bytes, as " in field:
        return Explanation(field, general.fix)
    return Explanation(field, fix_for_field(field, program.type))


def _rejected_at(found: Rejection, path: Path, program: ProgramSpec) -> list[str]:
    """Returns the C line, the instruction, the registers that matter, and the verifier's own words."""
    lines = []
    if found.source:
        file, line, text = _place(found, path, program)
        lines.append(f"{file}:{line}: {text}" if line else f"C source: {text}")
    elif begins := line_of_program(path, program.name):
        lines.append(begins)
    if found.index is not None:
        lines.append(f"    instruction {found.index}: {found.instruction}")
    lines += [f"    {register} = {state}" for register, state in found.relevant_registers().items()]
    if found.acquired and found.acquired.source:
        step = found.acquired
        same = Rejection(index=step.index, source=step.source, file=step.file, line=step.line)
        file, line, text = _place(same, path, program)
        lines.append(f"acquired at {file}:{line}: {text}" if line else f"acquired at: {text}")
    return lines + [f"verifier: {said}" for said in found.complaint[-_MOST_SAID:]]


def _place(found: Rejection, path: Path, program: ProgramSpec) -> tuple[str, int | None, str]:
    """Returns file, line and text of the rejected instruction; kernels before 6.10 give only the text."""
    file, line = found.file, found.line
    if not line:
        same = [r for r in source_lines(path) if r.text == found.source]
        if not same:
            return "", None, found.source
        nearest = min(same, key=lambda r: abs(r.offset - 8 * (found.index or 0)))
        file, line = Path(nearest.file).name, nearest.line
    name = missing_name(found.text)  # clang moves the instruction of a relocation up to earlier lines
    if name and name not in found.source:
        use = use_of(path, program.section, name, line)
        if use is not None:
            return Path(use.file).name, use.line, use.text
    return file, line, found.source


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.strip("\n").splitlines())


def refused_type(type: ProgramType | int) -> Explanation | None:
    """Returns an explanation if this kernel lacks the program type; else None.

    Use this if the verifier wrote nothing about the program.
    """
    if not isinstance(type, ProgramType) or probe("program_type", str(type)):
        return None
    return Explanation(
        came_with(f"Linux {release()} refuses programs of type {type}", f"program type {type}"),
        (f'mark the test bpf_requires("{type}")'),
    )
