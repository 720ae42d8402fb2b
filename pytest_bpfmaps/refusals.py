"""Why libbpf or the kernel refused an object: from error numbers and libbpf's log to a message."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from .errors import LoadError, VerifierError
from .kernel.privilege import refusal_hint
from .libbpf.calls import as_errno, reason

_BEGIN = "-- BEGIN PROG LOAD LOG --"
_END = "-- END PROG LOAD LOG --"
_FAILED_PROGRAM = re.compile(r"^prog '([^']+)': ", re.MULTILINE)
_FAILED_MAP = re.compile(r"^map '([^']+)': (.*)$", re.MULTILINE)
_EM_BPF = 247
_MACHINES = {3: "x86", 40: "ARM", 62: "x86-64", 183: "AArch64", 243: "RISC-V", 21: "PowerPC64", 22: "S/390"}
_TAIL = 14


def explain_open(path: Path, number: int, log: str) -> LoadError:
    """For a file that libbpf could not open as an object."""
    why, fix = _look_at(path)
    return LoadError(
        "cannot open",
        on=str(path),
        why=why or reason(number),
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


def explain_load(name: str, number: int, log: str, types: dict[str, str]) -> LoadError:
    """For an object that could not be loaded; `types` are its programs' types by name."""
    verifier_log = _verifier_log(log)
    program = _FAILED_PROGRAM.search(log)
    program_name = program[1] if program else None
    type = types.get(program_name or "", next(iter(types.values()), ""))
    if verifier_log.strip() and number not in (errno.EPERM,):
        return _rejected(name, program_name, number, verifier_log)
    on = f"{name}: program {program_name!r} ({type})" if program_name else name
    failed_map = _FAILED_MAP.search(log)
    if failed_map and not program_name:
        on = f"{name}: map {failed_map[1]!r}"
    fix = refusal_hint(type) if number in (errno.EPERM, errno.EACCES) else None
    return LoadError(
        "cannot load", on=on, why=reason(number), details=_indent(log) or None, fix=fix, errno=number
    )


def _rejected(name: str, program: str | None, number: int, log: str) -> VerifierError:
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith("processed ")]
    tail = lines[-_TAIL:]
    return VerifierError(
        "the verifier rejected",
        on=f"program {program!r} of {name}",
        why=lines[-1] if lines else reason(number),
        details=_indent("\n".join(tail)),
        fix="lines that begin with ';' are your C source; the error's log attribute has the whole log",
        errno=number,
        log=log,
    )


def _verifier_log(log: str) -> str:
    start = log.find(_BEGIN)
    if start < 0:
        return ""
    end = log.find(_END, start)
    return log[start + len(_BEGIN) : end if end >= 0 else None].strip("\n")


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.strip("\n").splitlines())
