"""Adds declarations that examples in books and articles leave out, and allows newer instructions.

They are added only after clang has refused the source because they are missing. So they can't clash with the
source's own declarations.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_bpfmaps.compiler.portability import Finding, tell

_FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "include")


@dataclass(frozen=True)
class Assumption:
    """What is added: `refusal` matches clang's error, `flags` add it, `advice` says what to write."""

    refusal: re.Pattern[str]
    flags: tuple[str, ...]
    advice: str
    name: str = ""  # the name of what is added, if clang's error has none

    def is_settled(self, flags: Iterable[str]) -> bool:
        """Returns whether the user's own options decide this."""
        return self.flags == _MCPU and any(flag.startswith("-mcpu") for flag in flags)


def _including(header: str) -> tuple[str, ...]:
    return "-include", os.path.join(_FOLDER, header)


_MCPU = ("-mcpu=v3",)


_ERROR = r"^(.+?:\d+):\d+: error: "
ASSUMPTIONS = (
    Assumption(
        re.compile(
            _ERROR + r"(?:unknown type name|use of undeclared identifier) '([us](?:8|16|32|64))'",
            re.MULTILINE,
        ),
        _including("bpfmaps_short_types.h"),
        "is the kernel's own short name, and is declared here; to compile elsewhere too, include "
        '"vmlinux.h" or write __{name}',
    ),
    Assumption(
        re.compile(_ERROR + r".*incomplete type '(struct bpf_map_def)'", re.MULTILINE),
        _including("bpfmaps_map_def.h"),
        "is declared here as libbpf declared it before 1.0; to compile elsewhere too, declare it, or define "
        "the map in .maps",
    ),
    Assumption(
        re.compile(
            _ERROR + r"(?:[Uu]nsupported atomic operations?|Invalid usage of the XADD return value)"
            r"|^fatal error: error in backend: line (?P<line>\d+): Invalid usage of the XADD",
            re.MULTILINE,
        ),
        _MCPU,
        "is what this atomic operation needs, and is added here: clang before 20 compiles for older kernels; "
        "to compile elsewhere too, give clang the option {name}",
        _MCPU[0],
    ),
)


_WARNING = re.compile(r"^(.+?):(\d+): warning: ('.*); (to compile elsewhere too, .*)$", re.MULTILINE)


def assumptions_in(warnings: str) -> list[Finding]:
    """Returns what was added for an object, from the warnings that `wanted` returned for it."""
    return [Finding(f, int(n), what, spelling) for f, n, what, spelling in _WARNING.findall(warnings)]


def wanted(
    output: str, given: Iterable[Assumption], flags: Iterable[str] = (), file: str = ""
) -> tuple[Assumption, str] | None:
    """Returns what clang's `output` needs beyond `given`, and a warning that says so; else None.

    `flags` are the options that clang had. `file` is the source, for errors in which clang names only a line.
    """
    for each in ASSUMPTIONS:
        found = each.refusal.search(output)
        if found and each not in given and not each.is_settled(flags):
            name = each.name or found[2]
            place = found[1] or f"{file}:{found['line']}"
            return each, f"{place}: warning: '{name}' {each.advice.format(name=name)}\n"
    return None


def show_warnings(text: str, *, portable: bool = False) -> None:
    """Prints clang's warnings, so that pytest captures them with the test.

    For each declaration that was added to compile the source, it also gives a `PortabilityWarning`. With
    `portable` it raises a `PortabilityError` instead.
    """
    print(text, end="", file=sys.stderr)
    tell(assumptions_in(text), refuse=portable)
