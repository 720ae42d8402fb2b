"""Explains why libbpf could not open a file as an object."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_bpfmaps.compiler.linked_objects import linked_inputs
from pytest_bpfmaps.elf.editor import Elf
from pytest_bpfmaps.errors import LoadError
from pytest_bpfmaps.libbpf.calls import as_errno, reason
from pytest_bpfmaps.objects.diagnosis.libbpf_log import explain_log
from pytest_bpfmaps.objects.diagnosis.source_lines import line_of_call, line_of_map
from pytest_bpfmaps.paths import objects_dir

_EM_BPF = 247
_MACHINES = {3: "x86", 40: "ARM", 62: "x86-64", 183: "AArch64", 243: "RISC-V", 21: "PowerPC64", 22: "S/390"}
_NAMED = re.compile(r"^map '([^']+)': |extern '([^']+)'", re.MULTILINE)
_BTF_DUMP = re.compile(
    r"^.*-- BEGIN BTF LOAD LOG ---\n.*?^-- END BTF LOAD LOG --\n", re.MULTILINE | re.DOTALL
)
_WITHOUT_TYPES = "Retrying without BTF."  # libbpf creates the map again; if that fails, it says so
# these lines do not help: a path in our cache, and advice that is wrong from Linux 5.11 on
_USELESS = (
    "failed to load object",
    "permission error while running as root",
    "libbpf: failed to load object",
)
_MOST_SAID = 6


def explain_open(path: Path, number: int, log: str) -> LoadError:
    """Returns the error for a file that libbpf could not open as an object."""
    why, fix = _look_at(path)
    declared = ""
    if why is None:
        why, fix = explain_log(log) or (reason(number), fix)
        if named := _NAMED.search(log):
            declared = line_of_map(path, named[1]) if named[1] else line_of_call(path, named[2])
    return LoadError(
        "cannot open",
        on=_name_of(path),
        why=why,
        details="\n".join(told_by_libbpf(log, declared)) or None,
        fix=fix,
        errno=as_errno(number),
    )


def _name_of(path: Path) -> str:
    """Returns the names of the sources' objects for an object of our cache, and any other path as it is."""
    if not path.is_relative_to(objects_dir()):
        return str(path)
    return " + ".join(each.name for each in linked_inputs(path) or [path])


def _look_at(path: Path) -> tuple[str | None, str | None]:
    """Returns what is wrong with the file, by its first bytes, and what to do."""
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
        return "it is compiled for big-endian BPF (bpfeb), but this machine is little-endian", fix
    return None, None if _has_types(path) else fix


def _has_types(path: Path) -> bool:
    try:
        return Elf(path.read_bytes()).section(".BTF") is not None
    except ValueError:
        return False


def told_by_libbpf(log: str, first: str) -> list[str]:
    """Returns the C line `first`, then the lines of libbpf's log that help."""
    log = _BTF_DUMP.sub("", log)
    lines = [
        line
        for line in log.splitlines()
        if line.strip() and not line.startswith(_USELESS) and not line.endswith(_WITHOUT_TYPES)
    ]
    return [*([first] if first else []), *lines[-_MOST_SAID:]]
