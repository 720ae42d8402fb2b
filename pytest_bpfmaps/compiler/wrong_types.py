"""Explains clang's errors about types: incomplete structs, values in place of addresses, what BPF lacks."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.bpf_types import MapType

_SECTION = re.compile(r"error: expected string literal as argument of 'section' attribute\n[^\n]*SEC\((\w+)")
_MAP_ITSELF = re.compile(r"error: passing 'struct \(unnamed[^\n]*parameter of incompatible type 'void \*'")
_NUMBER = re.compile(
    r"error: incompatible integer to pointer conversion passing [^\n]* to parameter of type 'const void \*'"
    r"[^\n]*\n[^\n]*\b(bpf_map_\w+_elem)\("
)
_TYPE_AS_NUMBER = re.compile(
    r"error: (?:unexpected type name '[^']*': expected expression|expected expression)\n[^\n]*__uint\("
)
_FEW_ARGUMENTS = re.compile(
    r"error: too (few|many) arguments to function call, expected (\d+), have \d+[^\n]*\n([^\n]*)\n([^\n]*)"
)
_HELPERS = Path("/usr/include/bpf/bpf_helper_defs.h")
_MAP_TYPE = re.compile(r"error: use of undeclared identifier 'BPF_MAP_TYPE_(\w+)'")
_INCOMPLETE = re.compile(r"error: [^\n]*incomplete (?:definition of )?type 'struct (\w+)'")
_ENUMERATOR = re.compile(r"error: use of undeclared identifier '([A-Z]\w+)'")
_INLINE = re.compile(r"<inline asm>:\d+:\d+: note: instantiated into assembly here")
_HEADERS = Path("/usr/include/linux")
# the kernel's struct: what a program gets in its place
_CONTEXTS = {"xdp_buff": "xdp_md", "sk_buff": "__sk_buff", "sk_msg": "sk_msg_md"}


def explain_types(output: str, *, vmlinux: bool) -> Explanation | None:
    """Explains an error about a type, or something that BPF lacks; None for another error.

    `vmlinux` says whether the source includes the ``vmlinux.h`` that is made for it.
    """
    if section := _SECTION.search(output):
        return Explanation("SEC() takes a text", f'put the section into quotes: SEC("{section[1]}")')
    if _MAP_ITSELF.search(output):
        return Explanation("the helper takes the address of the map, and gets the map", "write &map")
    if number := _NUMBER.search(output):
        return Explanation(
            f"{number[1]}() takes the addresses of key and value, and gets a number",
            "put the number into a variable, and give the variable's address: &key",
        )
    if _TYPE_AS_NUMBER.search(output):
        return Explanation(
            "__uint() takes a number, and gets a type",
            "write __type(key, …) and __type(value, …) for types, and __uint(key_size, sizeof(…)) for a size",
        )
    if (few := _FEW_ARGUMENTS.search(output)) and (explained := _few_arguments(few)):
        return explained
    if (map_type := _MAP_TYPE.search(output)) and (near := _near_type(map_type[1])):
        why = f"there is no BPF_MAP_TYPE_{map_type[1]} in the headers that are used"
        return Explanation(why, f"did you mean BPF_MAP_TYPE_{near}?")
    return _lacks(output) or (None if vmlinux else _without_vmlinux(output))


def _few_arguments(found: re.Match[str]) -> Explanation | None:
    """Explains a call of a helper with too few, or too many, arguments; None for another function."""
    _, wanted, source, marks = found.groups()
    name = re.match(r"bpf_\w+", source[marks.index("~") :]) if "~" in marks else None
    prototype = name and _prototype(name[0])
    if not name or not prototype:
        return None
    flags = "; flags may be 0" if "flags" in prototype else ""
    return Explanation(f"{name[0]}() takes {wanted} arguments", f"give it {prototype}{flags}")


def _prototype(helper: str) -> str | None:
    """Returns the parameters of a helper, ``(void *map, …)``, as libbpf's header declares them."""
    try:
        text = _HELPERS.read_text(errors="replace")
    except OSError:
        return None
    found = re.search(rf"\(\* ?(?:const )?{helper}\)(\([^)]*\))", text)
    return found[1] if found else None


def _near_type(wanted: str) -> str | None:
    """Returns the map type whose name `wanted` begins with, or that is most like it; else None."""
    names = [each.name for each in MapType if each.name != wanted]
    begins = [name for name in names if wanted.startswith(name)]
    near = get_close_matches(wanted, names, n=1, cutoff=0.75)
    return max(begins or near, key=len, default=None)


def _lacks(output: str) -> Explanation | None:
    if "variadic functions are not supported" in output:
        return Explanation(
            "a function of BPF has a fixed number of parameters",
            "give it a pointer to an array and the number of elements, or write a macro",
        )
    if "thread-local storage is not supported" in output:
        return Explanation(
            "BPF has no variables of a thread",
            "use a map of type BPF_MAP_TYPE_PERCPU_ARRAY, or BPF_MAP_TYPE_TASK_STORAGE",
        )
    if _INLINE.search(output):
        return Explanation(
            "the text of asm is no assembly of BPF",
            'write C in its place; or BPF\'s assembly, such as asm volatile("%0 += 1" : "+r"(number))',
        )
    return None


def _without_vmlinux(output: str) -> Explanation | None:
    """Explains a struct or an enumerator of a header that the source does not include."""
    if incomplete := _INCOMPLETE.search(output):
        name = incomplete[1]
        if name in _CONTEXTS:
            return Explanation(
                f"struct {name} is the kernel's own: a program gets a struct {_CONTEXTS[name]}",
                f"declare the parameter as struct {_CONTEXTS[name]} *ctx",
            )
        header = _header(re.compile(rf"^struct {name}\s*\{{", re.MULTILINE))
        if header:
            return Explanation(f"struct {name} is declared, but not defined", f"#include <linux/{header}>")
        return Explanation(
            f"struct {name} is declared, but not defined: it is in no header for user space",
            'include "vmlinux.h" in place of <linux/bpf.h> and other headers of the kernel',
        )
    if constant := _ENUMERATOR.search(output):
        header = _header(re.compile(rf"^\s+{constant[1]}\b\s*[=,]", re.MULTILINE))
        if header:
            return Explanation(f"{constant[1]} is in another header", f"#include <linux/{header}>")
    return None


def _header(defines: re.Pattern[str]) -> str | None:
    """Returns the first header of the kernel for user space with such a line."""
    for path in sorted(_HEADERS.glob("*.h")):
        if defines.search(path.read_text(errors="replace")):
            return path.name
    return None
