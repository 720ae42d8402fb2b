"""Explains libbpf's log of a load that failed before the verifier, or without it."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_bpfmaps.btf.special_fields import LOCKS, kernel_fields
from pytest_bpfmaps.compiler.library_names import explain_builtin, explain_libc
from pytest_bpfmaps.elf.editor import STB_WEAK, Elf
from pytest_bpfmaps.elf.name_search import is_close, tell_closest
from pytest_bpfmaps.errors import ENOTSUPP, Explanation, closest
from pytest_bpfmaps.kernel.attach_names import symbols, symbols_like
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.feature_releases import came_with
from pytest_bpfmaps.kernel.known_names import is_function
from pytest_bpfmaps.kernel.mounts import has_sysfs, how_to_mount
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.kernel.section_names import SECTIONS, TARGETED, near_sections
from pytest_bpfmaps.kernel.unloaded_modules import explain_unloaded
from pytest_bpfmaps.kernel.vmlinux_btf import FUNC, STRUCT, NoTypesError, has_type, type_names
from pytest_bpfmaps.libbpf import ffi, lib, version
from pytest_bpfmaps.maps.create_errors import EMPTY, Attributes, explain_refused_map
from pytest_bpfmaps.maps.info import MapInfo
from pytest_bpfmaps.maps.type_rules import shape_of
from pytest_bpfmaps.objects.attempt import Attempt
from pytest_bpfmaps.objects.diagnosis.map_declarations import MAP_DECLARATIONS
from pytest_bpfmaps.objects.diagnosis.struct_functions import STRUCT_OPS
from pytest_bpfmaps.verifier import Rejection
from pytest_bpfmaps.verifier.special_advice import TRAP

# libbpf before 1.6 writes an error as "Invalid argument(-22)", later ones as "-EINVAL"
_MAP = re.compile(r"^map '([^']+)': failed to create: (?:.*\(-(\d+)\)|-(\w+))", re.MULTILINE)
_UNMAPPED = r"map '[^']*(\.(?:bss|data)[^']*)': failed to re-mmap\(\) contents: -(?:ENOTSUPP|524)"


def refused_map(attempt: Attempt, log: str) -> tuple[str, Explanation] | None:
    """Returns the name of the map that could not be created, and the explanation; None if none failed."""
    found = _MAP.search(log)
    if found is None or found[1] not in attempt.maps:
        return None
    name, handle = found[1], attempt.maps[found[1]].handle
    if unmapped := re.search(_UNMAPPED, log):
        return name, _not_mapped(unmapped)
    error = found[2] or found[3]
    number = int(error) if error.isdecimal() else getattr(errno, error, 0)
    inner = lib.bpf_map__inner_map(handle)
    if inner != ffi.NULL and f"map '{name}': failed to create inner map" in log:
        why, fix = explain_refused_map(attributes_of(inner), number)
        return name, Explanation(f"its inner map, of type {attributes_of(inner).type}: {why}", fix)
    declared = attempt.maps[name].declared
    if number == ENOTSUPP and declared.inner is not None:
        return name, _refused_inner(declared.inner, attempt)
    wanted = replace(
        attributes_of(handle),
        typed=bool(declared.key and declared.value),
        inner_fd=0 if declared.inner is None else -1,  # libbpf forgets its inner map when it creates the map
    )
    why, fix = explain_refused_map(wanted, number)
    return name, Explanation(why, _sizes_of(attempt) if fix == EMPTY else fix)


def _refused_inner(inner: MapInfo, attempt: Attempt) -> Explanation:
    """Explains that maps like `inner` can't be inner maps. Source: ``bpf_map_meta_alloc``, map_in_map.c."""
    types = attempt.codecs.btf if attempt.codecs else None
    if types and kernel_fields(types, inner.btf_value_type_id) & LOCKS:
        return Explanation(
            f"Linux {release()} allows no lock in the values of its inner maps (6.2 and later do)",
            "leave the lock out of them, or mark the test bpf_kernels('>=6.2')",
        )
    return Explanation(
        f"Linux {release()} takes no maps of type {inner.type} as inner maps",
        "give its inner maps another type",
    )


def _sizes_of(attempt: Attempt) -> str:
    """Returns the advice for maps without a size: one call that gives sizes to all of them."""
    empty = ((m.name, m.type) for m in attempt.maps if not m.max_entries)
    names = [n for n, type in empty if isinstance(type, MapType) and shape_of(type).entries]
    sizes = ", ".join(f"{name!r}: 1024" for name in names)
    return (
        "it has to be at least 1. The source does not say it, so give it at the load: "
        f"bpf.load(…, max_entries={{{sizes}}}), or write __uint(max_entries, …)"
    )


def attributes_of(handle: Any) -> Attributes:
    """Returns what libbpf creates a map with."""
    return Attributes(
        MapType.from_number(lib.bpf_map__type(handle)),
        lib.bpf_map__key_size(handle),
        lib.bpf_map__value_size(handle),
        lib.bpf_map__max_entries(handle),
        lib.bpf_map__map_flags(handle),
        lib.bpf_map__map_extra(handle),
        inner_fd=0 if lib.bpf_map__inner_map(handle) == ffi.NULL else -1,
    )


def explain_log(log: str) -> Explanation | None:
    """Returns the explanation for what libbpf could not find; None if the log has no such line."""
    for pattern, answer in _TABLE:
        found = re.search(pattern, log, re.MULTILINE)
        if found:
            return answer(found)
    return None


def _function(found: re.Match[str]) -> Explanation:
    name = found[1]
    if unloaded := explain_unloaded(name):
        return unloaded
    meant = "" if is_function(name) else _meant(name, type_names(FUNC).near(name))  # other kernels have it
    return Explanation(
        came_with(f"Linux {release()} has no kernel function {name} for BPF programs", f"kfunc {name}"),
        f"{meant}declare it __weak and guard the call: "
        f"if ({_exists(name)}) …; or mark the test bpf_requires(kfunc={name!r})",
    )


def _two_levels(found: re.Match[str]) -> Explanation:
    return Explanation(
        f"the inner maps of {found[1]!r} are maps of maps themselves, and no kernel nests maps so deeply",
        "give the inner maps another type, and a key with both parts: struct { __u32 first, second; }",
    )


def _typed_variable(found: re.Match[str]) -> Explanation:
    if found[1] not in symbols():
        return _variable(found)
    return Explanation(
        f"the kernel has {found[1]}, but its types do not say which type it has",
        f"declare it without a type, extern const void {found[1]} __ksym;, and read what is at &{found[1]} "
        "with bpf_probe_read_kernel()",
    )


def _variable(found: re.Match[str]) -> Explanation:
    meant = _meant(found[1], symbols_like(found[1]))
    return Explanation(
        f"Linux {release()} has no symbol {found[1]} that BPF programs may use",
        f"{meant}declare it __weak and compare its address with 0: if (&{found[1]}) …",
    )


def _meant(name: str, near: list[str]) -> str:
    """Returns ``did you mean …? or `` before another remedy; empty for a name that is not misspelt."""
    return f"{closest(name, near)} or " if is_close(name, near) else ""


def _exists(name: str) -> str:
    """Returns the C condition that a kernel function exists; the macro came with libbpf 1.2."""
    return f"bpf_ksym_exists({name})" if version() >= (1, 2) else f"&{name}"


_NO_CALLEE = re.compile(r"call \S*#0$")
_NOT_ELIMINATED = "kernel function call not eliminated"
_NEVER_TAKEN = "kernel btf_id 0 is not a function"  # Linux 5.13 to 5.15: of a guarded call, too
_UNRESOLVED = re.compile(r"^kfunc '(\w+)' is referenced but wasn't resolved$", re.MULTILINE)  # libbpf 1.2


def absent_weak(found: Rejection, path: Path) -> Explanation | None:
    """Explains a call of a weak kernel function that this kernel lacks; None for another rejection.

    libbpf 1.1 leaves the number 0 in the call, which the verifier does not explain. Later versions put the
    function's name into the log. `path` is the object.
    """
    told = _UNRESOLVED.search(found.text)
    name = told[1] if told else _absent_of_object(found, path)
    if name is None:
        return None
    if name == "__bpf_trap":
        return Explanation(*TRAP)
    if unloaded := explain_unloaded(name):
        return Explanation(unloaded.why, f"{unloaded.fix}; or guard the call: if ({_exists(name)}) …")
    if _NEVER_TAKEN in found.text:
        return Explanation(
            f"Linux {release()} has no {name}, and before Linux 5.16 it refuses even a guarded call of it",
            "leave the program out there: programs=[…] names the others; "
            f"or mark the test bpf_requires(kfunc={name!r})",
        )
    return Explanation(
        came_with(f"the call is not guarded, and Linux {release()} has no {name}", f"kfunc {name}"),
        f"guard it: if ({_exists(name)}) …; or mark the test bpf_requires(kfunc={name!r})",
    )


def _absent_of_object(found: Rejection, path: Path) -> str | None:
    """Returns the weak function that the kernel lacks: the one that a rejected line calls, else the first."""
    calls = [s.source for s in found.steps.values() if _NO_CALLEE.match(s.instruction)]
    if not calls and _NOT_ELIMINATED not in found.text and _NEVER_TAKEN not in found.text:
        return None
    try:
        symbols = Elf(path.read_bytes()).symbols()
        weak = [s.name for s in symbols if not s.section and s.binding == STB_WEAK]
        absent = [name for name in weak if not has_type(name, FUNC)]
    except (OSError, ValueError, NoTypesError):
        return None
    called = [n for n in absent if any(re.search(rf"\b{n}\b", source) for source in calls)]
    return next(iter(called or absent), None)


NO_SECTION = Explanation(
    "the function has no section, so its program type is not known",
    'put SEC("xdp") or another before it',
)


def _section(found: re.Match[str]) -> Explanation:
    if found[1] == ".text":
        return NO_SECTION
    release_of_libbpf = "{}.{}".format(*version())
    near = near_sections(found[1])
    meant = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    known = found[1] in SECTIONS or found[1].partition("/")[0] in TARGETED
    newer = "; this one came with a newer libbpf" if known else ""
    return Explanation(
        f"libbpf {release_of_libbpf} does not know the section name {found[1]!r}{newer}",
        f"{meant}docs.kernel.org/bpf/libbpf/program_types.html lists the names",
    )


def _setting(found: re.Match[str]) -> Explanation:
    return Explanation(
        f"the program needs {found[1]}, and this kernel's configuration does not have it",
        "check its name; if some kernels lack it, declare it __weak (it is 0 there); the configuration is "
        "looked for in /proc/config.gz and /boot",
    )


_DECLARED_AS = {"integer": "int {}", "char array": "char {}[64]"}


def _type_of_setting(found: re.Match[str]) -> Explanation:
    name, value, type = found.groups()
    declared = _DECLARED_AS.get(type, "bool {}" if value == "y" else "enum libbpf_tristate {}").format(name)
    return Explanation(
        f"{name} is {value} in this kernel, but the program declares it with a type that can't hold that",
        f"extern {declared} __kconfig;",
    )


def _no_setting(_: re.Match[str]) -> Explanation:
    return Explanation(
        "the program needs a CONFIG_ setting (__kconfig), and this kernel does not show its configuration",
        "the configuration is looked for in /proc/config.gz and /boot; bpf_requires(config=…) probes it",
    )


_SET_TARGET = "opened = bpf.open(…); opened.programs.NAME.set_attach_target"


def _no_replaced(_: re.Match[str]) -> Explanation:
    return Explanation(
        'a program of SEC("freplace/…") replaces a function of another program, and no program is given',
        f'give a program of a loaded object: {_SET_TARGET}("FUNCTION", base); obj = opened.load()',
    )


def _no_function(_: re.Match[str]) -> Explanation:
    return Explanation(
        "the section does not name the function or hook that the program attaches to",
        f'write SEC("fentry/FUNCTION") or SEC("lsm/HOOK"), or set it: {_SET_TARGET}("FUNCTION"); '
        "for freplace with the loaded program as its second argument",
    )


def _no_struct(found: re.Match[str]) -> Explanation:
    prefix = "bpf_struct_ops_"
    name = found[1].removeprefix(prefix)  # libbpf 1.7 writes it in front
    near = type_names(STRUCT).near(name, prefix)
    return Explanation(
        f"Linux {release()} has no struct {name} whose functions programs can be",
        f"{tell_closest(name, near)}; those that there are: bpftool btf dump file "
        f"/sys/kernel/btf/vmlinux | grep -o {prefix}[a-z_]*",
    )


def _no_sysfs(_: re.Match[str]) -> Explanation:
    why = "libbpf counts the CPUs in /sys/devices/system/cpu/possible, and can't read that file"
    return Explanation(
        why, "look at its permissions" if has_sysfs() else f"mount sysfs: {how_to_mount('sysfs')}"
    )


def _no_types(_: re.Match[str]) -> Explanation:
    if not has_sysfs():
        return Explanation(
            "the program needs the kernel's types (CO-RE); they are in sysfs, which is not mounted",
            how_to_mount("sysfs"),
        )
    return Explanation(
        "the program needs the kernel's types (CO-RE), and this kernel has none at /sys/kernel/btf/vmlinux",
        "boot a kernel with CONFIG_DEBUG_INFO_BTF=y: pytest --bpf-kernel=6.1",
    )


def _no_such_extern(found: re.Match[str]) -> Explanation:
    if found[1].startswith("bpf_") and is_function(found[1]):
        return Explanation(
            f"{found[1]} is a function of the kernel, but is not declared as one",
            f"put __ksym after its declaration: extern … {found[1]}(…) __ksym;",
        )
    if found[1].startswith("mem"):  # clang's own call: see explain_builtin
        return explain_builtin(found[1])
    if of_libc := explain_libc(found[1]):
        return of_libc
    return Explanation(
        f"{found[1]} is declared but not defined, and BPF programs have no C library",
        "write it yourself, include the source that has it, or for a kernel function declare it with __ksym",
    )


def _static_program(found: re.Match[str]) -> Explanation:
    return Explanation(
        f"{found[1]} is in a section of programs, but is static, and libbpf takes no static program",
        f"remove 'static' before {found[1]}, and 'inline', if it is there",
    )


def _other_prototype(found: re.Match[str]) -> Explanation:
    return Explanation(
        f"the program declares {found[1]} with other parameters, or another result, than this kernel",
        "declare it as this kernel does; this shows it: bpftool btf dump file /sys/kernel/btf/vmlinux | "
        f"grep -w {found[1]}",
    )


def _not_mapped(found: re.Match[str]) -> Explanation:
    section = found[1] if found[1].count(".") > 1 else f"{found[1]}.locks"
    return Explanation(
        f"the section {found[1]} has a lock, a timer, a kptr or a list, so the kernel does not map it into "
        f"memory, and libbpf {'.'.join(map(str, version()))} maps a section that has a global variable",
        "put the lock into the value of an array map, and look that value up; or make each variable static "
        f'or __hidden, in a section of their own: struct bpf_spin_lock lock SEC("{section}") __hidden;',
    )


def _jump_table(_: re.Match[str]) -> Explanation:
    return Explanation(
        "the program jumps by a table, as clang 22 and later compile a switch for -mcpu=v4, and libbpf "
        f"{'.'.join(map(str, version()))} can't load such a table",
        "compile it with cflags=['-fno-jump-tables'] or -mcpu=v3; or use libbpf 1.7 or later and Linux 6.19",
    )


def _extern_map(_: re.Match[str]) -> Explanation:
    return Explanation(
        "a map is declared extern, and no source that is linked here defines it",
        'link it with the source that does: bpf.load(["a.bpf.c", "b.bpf.c"])',
    )


def _map_elsewhere(found: re.Match[str]) -> Explanation:
    return Explanation(
        f"{found[1]} is used as a map, but it is in the section {found[2]}, which is none of maps",
        f'declare it in the section of maps: struct {{ … }} {found[1]} SEC(".maps");',
    )


_TABLE: list[tuple[str, Callable[[re.Match[str]], Explanation]]] = [
    *MAP_DECLARATIONS,
    *STRUCT_OPS,
    (r"extern \(func ksym\) '([^']+)': not found", _function),
    (r"extern \(func ksym\) '([^']+)': .*can't find", _function),
    (r"extern \(func ksym\) '([^']+)': func_proto \[\d+\] incompatible", _other_prototype),
    (r"extern \(var ksym\) '([^']+)': not found in kernel BTF", _typed_variable),
    (r"extern \((?:var )?ksym\) '([^']+)': (?:not found|failed to find)", _variable),
    (r"map '([^']+)\.inner': multi-level inner maps not supported", _two_levels),
    (r"failed to find BTF for extern '([^']+)'", _no_such_extern),
    (r"extern '(CONFIG_\w+)' \(strong\): not resolved", _setting),
    (r"extern \(kcfg\) '(CONFIG_\w+)': value '(.*)' implies (.*) type$", _type_of_setting),
    (r"extern '([^']+)' \(strong\): not resolved", _variable),
    (_UNMAPPED, _not_mapped),
    (r"bad map relo against '[^']+' in section '\.jumptables'", _jump_table),
    (r"bad map relo against '([^']+)' in section '([^']+)'", _map_elsewhere),
    (r"unrecognized extern section '\.maps'", _extern_map),
    (r"missing BPF prog type, check ELF section name '([^']+)'", _section),
    (r"program '([^']+)' is static and not supported", _static_program),
    (r"struct_ops init_kern: struct (\w+) is not found in kernel BTF", _no_struct),
    (r"Failed to open cpu mask file", _no_sysfs),
    (r"failed to open system Kconfig", _no_setting),
    (r"attach program FD is not set", _no_replaced),
    (r"no BTF-based attach target is specified", _no_function),
    (r"kernel BTF is missing at|[Ee]rror loading vmlinux BTF|failed to find valid kernel BTF", _no_types),
]
