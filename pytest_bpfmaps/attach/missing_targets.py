"""Explains an attachment whose target does not exist: which name is missing, and which names are similar."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.attach import Target, uprobes
from pytest_bpfmaps.errors import ENOTSUPP, Explanation, closest
from pytest_bpfmaps.kernel.attach_names import (
    explain_absent_function,
    explain_no_function,
    explain_no_type,
    functions,
    traceable_functions,
    tracepoint_names,
)
from pytest_bpfmaps.kernel.attach_points import probe_target
from pytest_bpfmaps.kernel.duplicate_symbols import explain_same_name, explain_untyped
from pytest_bpfmaps.kernel.known_names import SYSCALL_PREFIXES
from pytest_bpfmaps.kernel.kprobe_blacklist import how_to_see, is_blacklisted
from pytest_bpfmaps.kernel.kprobe_trial import has_symbol, is_changed_by_compiler
from pytest_bpfmaps.kernel.program_code import function_names
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.kernel.tracefs import no_tracefs, tracefs
from pytest_bpfmaps.kernel.unloaded_modules import explain_unloaded
from pytest_bpfmaps.kernel.vmlinux_btf import (
    FUNC,
    TYPEDEF,
    NoTypesError,
    enumerators,
    has_type,
    raw_tracepoint_arguments,
    vmlinux_btf,
)


def explain_missing(number: int, target: Target) -> Explanation | None:
    """Returns which part of the target is missing, and what to do; None if nothing is missing."""
    if "binary" in target:
        return uprobes.explain_missing(target, number)
    if "event" in target:
        return _tracepoint(target["category"], target["event"])
    if "tracepoint" in target:
        return _raw_tracepoint(target["tracepoint"], number if not target.get("cookie") else 0)
    if "syscall" in target:
        return _syscall(target["syscall"])
    if "functions" in target:
        return _many(target["functions"], number)
    if "target" in target:
        return explain_not_in_program(target.get("function", ""), target["target"])
    if "function" in target:
        return _function(target["function"], target.get("offset", 0), number)
    return None


def explain_not_in_program(name: str, program: Any) -> Explanation | None:
    """Explains that a loaded program lacks a function that freplace, fentry or fexit is for; else None."""
    try:
        names = function_names(program.fd)
    except OSError:
        return None
    if not name or not names or name in names:
        return None
    return Explanation(f"{program} has no function {name!r}, or clang has inlined it", closest(name, names))


def explain_no_types_of(section: str, name: str) -> Explanation:
    """Explains that the kernel's types lack the target of a program; `section` is such as ``fentry``."""
    what = "tracepoint" if section == "tp_btf" else "function"
    untyped = explain_untyped(name) if section.startswith(("fentry", "fexit", "fmod_ret")) else None
    return untyped or explain_unloaded(name, what) or explain_no_type(section, name)


def _many(functions: Any, number: int) -> Explanation | None:
    names = [functions] if isinstance(functions, str) else list(functions)
    missing = (_function(name, 0, number) for name in names if not set(name) & set("*?"))
    found = next(filter(None, missing), None)
    if found or number not in (errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP):
        return found
    types = enumerators(vmlinux_btf(), "bpf_attach_type")
    if "BPF_TRACE_KPROBE_MULTI" in types and not has_type("register_fprobe_ips", FUNC):
        guest = "run the test in a virtual machine: pytest --bpf-kernel=6.12"
        one = 'attach SEC("kprobe") to one function after the other, program.attach(function=…), or '
        return Explanation(
            f"Linux {release()} is built without CONFIG_FPROBE, which links to many functions need",
            f"{'' if probe_target('kprobe') else one}{guest}",
        )
    return None


def _tracepoint(category: str, event: str) -> Explanation | None:
    root = tracefs()
    if root is None:
        return no_tracefs()
    if (root / "events" / category / event / "id").exists():
        return None
    if unloaded := explain_unloaded(event, "tracepoint"):
        return unloaded
    known = tracepoint_names(category)
    if (root / "events" / category).is_dir():
        return Explanation(f"{category} has no tracepoint {event!r}", closest(event, known))
    return Explanation(f"there are no tracepoints of {category!r}", closest(category, known))


def explain_no_category(section: str) -> Explanation:
    """Explains why a program of section ``tracepoint/EVENT`` can't be attached: the category is missing."""
    kind, _, event = section.partition("/")
    root = tracefs()
    places = (
        sorted(p.parent.name for p in root.glob(f"events/*/{event}")) if root and event.isidentifier() else []
    )
    meant = [f'SEC("{kind}/{place}/{event}")' for place in places] or [f'SEC("{kind}/CATEGORY/EVENT")']
    return Explanation(
        f"the section {section!r} names an event, but no category", f"write {' or '.join(meant)}"
    )


def _raw_tracepoint(name: str, number: int) -> Explanation | None:
    try:
        if (count := raw_tracepoint_arguments(name)) is not None:
            return _beyond_arguments(name, count) if number == errno.EINVAL else None
    except NoTypesError:
        return None
    if has_type(f"btf_trace_{name}", TYPEDEF):
        return None
    if unloaded := explain_unloaded(name, "tracepoint"):
        return unloaded
    return explain_no_type("tp_btf", name)


def _beyond_arguments(name: str, count: int) -> Explanation | None:
    return Explanation(
        f"the program reads beyond the {count} arguments of {name}, or writes where no program may write",
        f"its context has {count} words of 8 bytes; btf_trace_{name} in vmlinux.h has them, after 'void *'",
    )


def _syscall(name: str) -> Explanation | None:
    known = functions()
    prefix = next((p for p in SYSCALL_PREFIXES if f"{p}read" in known), None)
    if prefix is None or f"{prefix}{name}" in known:
        return None
    return Explanation(f"there is no system call {name!r}", known.closest(name, prefix))


def _blacklisted(name: str) -> Explanation:
    by_type = f'attach by its type, SEC("fentry/{name}"), or ' if _is_typed(name) else ""
    return Explanation(
        f"the kernel allows no kprobe on {name!r}, because kprobes use it (its list: {how_to_see()})",
        f"{by_type}use a function that calls it",
    )


def _is_typed(name: str) -> bool:
    try:
        return probe_target("fentry") == "" and has_type(name, FUNC)
    except NoTypesError:
        return False


def _function(name: str, offset: int, number: int) -> Explanation | None:
    if told := _by_name(name, offset, number):
        return told
    is_absent = number == errno.ENOENT and has_symbol(name) is False and not is_changed_by_compiler(name)
    if is_absent and (told := explain_unloaded(name) or explain_absent_function(name)):
        return told
    if number == errno.EINVAL and not offset and is_blacklisted(name):
        return _blacklisted(name)
    known = functions()
    if not known:
        return None
    if name not in known:
        if unloaded := explain_unloaded(name):
            return unloaded
        if parts := [part for part in known.starting(f"{name}.") if ".cold" not in part]:
            return Explanation(
                f"the compiler made {', '.join(map(repr, parts[:3]))} of {name!r}",
                "use that name, if it may be traced; parts of the function may be inlined elsewhere",
            )
        base = name.partition(".")[0]
        return _other_part(name, base) if base != name and base in known else explain_no_function(name)
    count = known.count(name)
    if number == errno.EADDRNOTAVAIL or (number == errno.EINVAL and count > 1):
        return explain_same_name(name, count)
    traceable = traceable_functions()
    if (
        number in (errno.EINVAL, errno.ENOENT, errno.ESRCH)
        and traceable
        and name not in traceable
        and not offset
    ):
        return Explanation(
            f"{name!r} is a function that must not be traced (notrace, or blacklisted for kprobes)",
            traceable.closest(name),
        )
    if number == errno.EINVAL and not offset and is_blacklisted(name) is None:
        return _blacklisted(name)
    if number == errno.ENOENT and tracefs() is None:
        return no_tracefs()
    if number == errno.EINVAL and offset:
        return _between_instructions(name, offset)
    return None


def _by_name(name: str, offset: int, number: int) -> Explanation | None:
    """Returns what can be said without a list of all functions, which takes a guest a second."""
    base = name.partition(".")[0]
    if base != name and has_symbol(name) is False and has_symbol(base):
        return _other_part(name, base)
    return _between_instructions(name, offset) if number == errno.EILSEQ and offset else None


def _other_part(name: str, base: str) -> Explanation:
    return Explanation(f"this kernel's compiler has made no {name!r} of {base!r}", f"use {base!r}")


def _between_instructions(name: str, offset: int) -> Explanation:
    return Explanation(
        f"{name}+{offset:#x} is not the start of an instruction", "see objdump -d for the addresses"
    )
