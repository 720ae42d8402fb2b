"""Explains why the kernel refused a map or a program of an agent, where the verifier has said nothing."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.loaders.embedded_objects import NeededMap, NeededProgram, needed_by
from pytest_bpfmaps.maps.create_errors import explain_refused_map
from pytest_bpfmaps.objects.diagnosis.load_errors import refused_attach_point, refused_type

# the words of libbpf before and since 1.6, then those of cilium/ebpf
_MAP = re.compile(
    r"map '(?P<name>[^']+)': failed to create: (?:.*\(-(?P<number>\d+)\)|-(?P<word>E\w+))|"
    r"\bmap (?P<go>\w+): map create: (?P<said>invalid argument|argument list too long|cannot allocate memory)"
)
_GO = {"invalid argument": "EINVAL", "argument list too long": "E2BIG", "cannot allocate memory": "ENOMEM"}
_PROGRAM = re.compile(
    r"prog '(\w+)': BPF program load failed: (?:Invalid argument|-EINVAL)|"
    r"\bprogram (\w+): load program: invalid argument"
)
_EXPLAINED = {errno.EINVAL, errno.E2BIG, errno.ENOMEM}


def explain_refused_objects(text: str, files: Iterable[Path]) -> Explanation | None:
    """Names what the kernel lacks or forbids of the map or program that an agent wrote about; else None.

    `files` are its binary and its arguments, in which its objects may be.
    """
    if found := _MAP.search(text):
        word = found["word"] or _GO.get(found["said"] or "", "")
        number = int(found["number"] or 0) or getattr(errno, word, 0)
        return _of_map(found["name"] or found["go"], number, files) if number in _EXPLAINED else None
    if found := _PROGRAM.search(text):
        return _of_program(found[1] or found[2], files)
    return None


def _of_map(name: str, number: int, files: Iterable[Path]) -> Explanation | None:
    for each in needed_by(files):
        if isinstance(each, NeededMap) and each.name == name:
            # the agent may have given the size that its object lacks
            wanted = replace(each.attributes, max_entries=each.attributes.max_entries or 1)
            known = explain_refused_map(wanted, number)
            return Explanation(f"the kernel refused the map {name!r}: {known.why}", known.fix)
    return None


def _of_program(name: str, files: Iterable[Path]) -> Explanation | None:
    for each in needed_by(files):
        if isinstance(each, NeededProgram) and each.name == name:
            known = refused_type(ProgramType.from_number(each.type)) or refused_attach_point(each.section)
            return known and Explanation(f"the kernel refused the program {name!r}: {known.why}", known.fix)
    return None
