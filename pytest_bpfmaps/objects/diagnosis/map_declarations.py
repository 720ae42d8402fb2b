"""Explains libbpf's log for a map with a declaration that libbpf can't read."""

from __future__ import annotations

import re
from collections.abc import Callable

from pytest_bpfmaps.errors import Explanation, closest
from pytest_bpfmaps.libbpf import version

# bpf_object__init_user_btf_map and parse_btf_map_def in libbpf.c
_FIELDS: tuple[str, ...] = (
    "type",
    "max_entries",
    "map_flags",
    "numa_node",
    "key_size",
    "value_size",
    "key",
    "value",
    "values",
)
_FIELDS += ("pinning", "map_extra")


def _attribute(found: re.Match[str]) -> Explanation:
    return Explanation(
        "libbpf {}.{}".format(*version()) + f" can't read the attribute {found[2]} of map {found[1]!r}",
        "write it with __uint, __type or __array as its documentation does; newer forms need a newer libbpf",
    )


def _static_map(found: re.Match[str]) -> Explanation:
    return Explanation(
        f"map {found[1]!r} is static, and libbpf takes only maps that other files can see",
        "remove the word static before its declaration",
    )


def _no_map_type(found: re.Match[str]) -> Explanation:
    return Explanation(f"map {found[1]!r} has no type", "declare one: __uint(type, BPF_MAP_TYPE_HASH);")


def _unknown_field(found: re.Match[str]) -> Explanation:
    return Explanation(
        f"map {found[1]!r} has a field {found[2]!r}, which maps don't have",
        closest(found[2], _FIELDS),
    )


def _pinning(found: re.Match[str]) -> Explanation:
    return Explanation(
        f"map {found[1]!r} has a value of pinning that libbpf does not know: {found[2]}",
        "write __uint(pinning, LIBBPF_PIN_BY_NAME), or leave it out",
    )


def _no_struct(found: re.Match[str]) -> Explanation:
    return Explanation(
        f"{found[1]!r} is in the section of maps, but is not a map",
        f'remove SEC(".maps") from its declaration; a map is a struct: '
        f'struct {{ __uint(type, …); … }} {found[1]} SEC(".maps"); several maps each have a name of their '
        "own, or are in a map of type BPF_MAP_TYPE_ARRAY_OF_MAPS, not in an array of C",
    )


def _two_sizes(found: re.Match[str]) -> Explanation:
    name, part, first, second = found.groups()
    return Explanation(
        f"map {name!r} declares two sizes of its {part}: {first} and {second} bytes",
        f"leave out __uint({part}_size, …): __type({part}, …) has the size",
    )


def _no_size(found: re.Match[str]) -> Explanation:
    if found[1].endswith(".inner"):
        return Explanation(
            f"the {found[2]} of map {found[1]!r} has a type without a size: clang leaves out the members of "
            "a struct that it finds only in the declaration of an inner map",
            "define the struct, and declare a global variable of it: struct NAME unused; or give the size: "
            f"__uint({found[2]}_size, sizeof(…)) in place of __type({found[2]}, …)",
        )
    return Explanation(
        f"the {found[2]} of map {found[1]!r} has a type without a size: a struct that is only declared",
        "define the struct, or include the header that does; or give the size: "
        f"__uint({found[2]}_size, …) in place of __type({found[2]}, …)",
    )


MAP_DECLARATIONS: list[tuple[str, Callable[[re.Match[str]], Explanation]]] = [
    (r"map '([^']+)': map type isn't specified", _no_map_type),
    (r"map '([^']+)': unsupported map linkage", _static_map),
    (r"map '([^']+)': unknown field '([^']+)'", _unknown_field),
    (r"map '([^']+)': invalid pinning value (\d+)", _pinning),
    (r"map '([^']+)': unexpected def kind", _no_struct),
    (r"map '([^']+)': conflicting (key|value) size (\d+) != (\d+)", _two_sizes),
    (r"map '([^']+)': can't determine (key|value) size", _no_size),
    (
        r"map '([^']+)': (?:unsupported |invalid |)(?:attr|value spec for|spec)? ?'?(\w+)'?: expected",
        _attribute,
    ),
]
