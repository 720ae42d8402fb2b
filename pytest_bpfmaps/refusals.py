"""Why libbpf or the kernel refused an object: from error numbers and libbpf's log to a message."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .attach.sections import kind
from .btf.lines import source_lines
from .causes import explain_log, refused_helper, refused_map, refused_program_type
from .errors import LoadError, VerifierError
from .kernel.names import explain_no_type
from .kernel.privilege import refusal_hint
from .libbpf.calls import as_errno, reason
from .paths import objects_dir
from .relocations import explain_relocation
from .second_look import log_of_rejected
from .verifier import Advice, Rejection, advise, parse_log
from .verifier.buffers import LogBuffer

if TYPE_CHECKING:
    from .objects import OpenedObject
    from .programs import ProgramSpec

_FAILED_PROGRAM = re.compile(r"^prog '([^']+)': ", re.MULTILINE)
_NO_TYPE = re.compile(r"failed to find kernel BTF type ID of '([^']+)'")
_EM_BPF = 247
_MACHINES = {3: "x86", 40: "ARM", 62: "x86-64", 183: "AArch64", 243: "RISC-V", 21: "PowerPC64", 22: "S/390"}
_MOST_SAID = 6
_PARSED = 1 << 18  # characters from the end of a log; registers change all the time, so this is enough


def explain_open(path: Path, number: int, log: str) -> LoadError:
    """For a file that libbpf could not open as an object."""
    why, fix = _look_at(path)
    if why is None:
        why, fix = explain_log(log) or (reason(number), fix)
    return LoadError(
        "cannot open",
        on=path.name if path.is_relative_to(objects_dir()) else str(path),
        why=why,
        details=log or None,
        fix=fix,
        errno=as_errno(number),
    )


def _look_at(path: Path) -> tuple[str | None, str | None]:
    """What is wrong with the file, from its first bytes."""
    fix = "compile it with 'clang -g -O2 -target bpf', or name the .bpf.c file and let bpf.load compile it"
    try:
        head = path.read_bytes()[:64]
    except OSError as e:
        return reason(e.errno or 0), None
    if not head:
        return "the file is empty", fix
    if head[:4] != b"\x7fELF":
        return "it is not an ELF object", fix
    if len(head) < 20:
        return "the ELF header is cut off", fix
    big = head[5] == 2
    machine = int.from_bytes(head[18:20], "big" if big else "little")
    if machine != _EM_BPF:
        name = _MACHINES.get(machine, f"machine {machine}")
        return f"it is an ELF object for {name}, not for BPF", fix
    if big:
        return "it is compiled for big-endian BPF (bpfeb), this machine is little-endian", fix
    return None, fix


def explain_load(opened: OpenedObject, number: int, log: str, logs: Mapping[str, LogBuffer]) -> LoadError:
    """For an object that could not be loaded: libbpf's `log`, and each program's verifier log."""
    failed = _FAILED_PROGRAM.search(log)
    program = opened.programs[failed[1]] if failed and failed[1] in opened.programs else None
    said = logs[program.name].text if program else ""
    if program and parse_log(said).complaint:
        return _rejected(opened, program, number, said)
    on = f"{opened.name}: {program}" if program else opened.name
    refused = None if program else refused_map(opened, log)
    answer: tuple[str, str | None]
    if refused:
        on = f"{opened.name}: map {refused[0]!r}"
    no_type = _NO_TYPE.search(log)
    if no_type and program:
        answer = explain_no_type(kind(program.section), no_type[1])
    else:
        answer = refused[1] if refused else _explain_log(opened, program, number, log)
    why, fix = answer
    return LoadError("cannot load", on=on, why=why, details=_indent(log) or None, fix=fix, errno=number)


def _explain_log(
    opened: OpenedObject, program: ProgramSpec | None, number: int, log: str
) -> tuple[str, str | None]:
    found = explain_log(log)
    if found:
        return found
    type = program.type if program else next((p.type for p in opened.programs), "")
    if number in (errno.EPERM, errno.EACCES):
        return reason(number), refusal_hint(str(type))
    return (refused_program_type(program.type) if program else None) or (reason(number), None)


def _rejected(opened: OpenedObject, program: ProgramSpec, number: int, said: str) -> VerifierError:
    log = log_of_rejected(opened, program.name, said)
    found = parse_log(log[-_PARSED:])
    advice = _advice(found, program)
    last = found.complaint[-1] if found.complaint else reason(number)
    return VerifierError(
        "the verifier rejected",
        on=f"program {program.name!r} of {opened.name}",
        why=advice.why if advice else last,
        details=_indent("\n".join(_rejected_at(found, opened.path))),
        fix=advice.fix if advice else "the whole log is in the error's log attribute",
        errno=number,
        log=log,
    )


def _advice(found: Rejection, program: ProgramSpec) -> Advice | None:
    """What this kernel has and lacks says more than the general sentence."""
    known = explain_relocation(found.text) or refused_helper(found.text, found.source, program.type)
    general = advise(found.text)
    if known is None or (general is not None and "may sleep" in general.why):
        return general
    return Advice(known[0], known[1] or "")


def _rejected_at(found: Rejection, path: Path) -> list[str]:
    """The C line, the instruction, the registers that matter, the verifier's own words."""
    lines = []
    if found.source:
        file, line = _place(found, path)
        lines.append(f"{file}:{line}: {found.source}" if line else f"C source: {found.source}")
    if found.index is not None:
        lines.append(f"    instruction {found.index}: {found.instruction}")
    lines += [f"    {register} = {state}" for register, state in found.relevant_registers().items()]
    return lines + [f"verifier: {said}" for said in found.complaint[-_MOST_SAID:]]


def _place(found: Rejection, path: Path) -> tuple[str, int | None]:
    """File and line of the rejected instruction; kernels before 6.10 tell the text only."""
    if found.line:
        return found.file, found.line
    same = [r for r in source_lines(path) if r.text == found.source]
    if not same:
        return "", None
    nearest = min(same, key=lambda r: abs(r.offset - 8 * (found.index or 0)))
    return Path(nearest.file).name, nearest.line


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.strip("\n").splitlines())
