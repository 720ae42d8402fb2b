"""Explains CO-RE relocations that failed: which field, and what this kernel has instead."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pytest_bpfmaps.errors import NONE, BpfError, Explanation, closest
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.kernel.struct_fields import names_at, names_in

_RELOCATION = re.compile(
    r"failed to resolve CO-RE relocation <(?P<kind>\w+)> \[\d+\] (?P<type>struct|union|enum|typedef)(?:64)? "
    r"(?P<name>\w+)(?:::(?P<value>\w+)|(?P<path>(?:[.\[][\w\]]+)*))"
)
_FLAVOUR = re.compile(r"___.*$")  # libbpf ignores this end of a type's name


def explain_relocation(complaint: str) -> Explanation | None:
    """Explains the sentence that libbpf puts into the verifier's log; None if there is none."""
    found = _RELOCATION.search(complaint)
    if found is None:
        return None
    kind, name = found["type"], _FLAVOUR.sub("", found["name"])
    path = re.findall(r"\.(\w+)", found["path"] or "")
    try:
        return _explain(kind, name, path, found["value"])
    except BpfError as e:  # without the kernel's types there is nothing to compare with
        return Explanation(f"the program uses {kind} {name} ({_CAUSE}), {e.what}: {e.why}", str(e.fix))


def _near(name: str, known: Iterable[str]) -> str:
    """Returns ``did you mean …? or `` before another remedy; empty without any names."""
    told = closest(name, known)
    return "" if told == NONE else f"{told} or "


def missing_name(complaint: str) -> str:
    """Returns the innermost name that was not found, as in the C source; empty if the log has none."""
    found = _RELOCATION.search(complaint)
    if found is None:
        return ""
    path = re.findall(r"\.(\w+)", found["path"] or "")
    return str(found["value"] or (path[-1] if path else found["name"]))


_CAUSE = "a CO-RE relocation failed"


def _explain(kind: str, name: str, path: list[str], value: str | None) -> Explanation:
    here = f"Linux {release()}"
    if kind == "typedef":
        return Explanation(
            f"{here} does not have the type {name} as the program declares it ({_CAUSE})",
            f"guard it with bpf_core_type_exists({name})",
        )
    names = names_in(kind, name)
    if names is None:
        return Explanation(
            f"{here} does not have {kind} {name} ({_CAUSE})",
            f"guard it with bpf_core_type_exists({kind} {name}), or keep the test to kernels that have it; "
            "a struct of the program's own is read without CO-RE: BPF_PROBE_READ(), no preserve_access_index",
        )
    if value:
        return Explanation(
            f"{here} does not have {value} in enum {name} ({_CAUSE})",
            f"{_near(value, names)}guard it with bpf_core_enum_value_exists(enum {name}, {value})",
        )
    depth, known = names_at(kind, name, path)
    if not path or depth == len(path):
        return Explanation(
            f"{here} has {'.'.join([name, *path])} with another type than the program declares ({_CAUSE})",
            f"compare the program's {kind} {name} with vmlinux.h, and declare the other type as a flavour: "
            f"{kind} {name}___old",
        )
    inside = "".join(f".{step}" for step in path[:depth])
    whole = ".".join(path)
    return Explanation(
        f"{here} does not have the field {path[depth]!r} in {kind} {name}{inside} ({_CAUSE})",
        f"{_near(path[depth], known)}guard it with bpf_core_field_exists(((struct {name} *)0)->{whole})"
        if kind == "struct"
        else closest(path[depth], known),
    )
