"""Declarations that many a printed program takes for granted, and no header that it includes has.

Given only where clang has just refused the source for want of them, so no source's own ones are in their way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .portability import Finding

_FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "include")


@dataclass(frozen=True)
class Assumption:
    """What is given: `refusal` is how clang asks for it, `header` has it, `advice` says what to write."""

    refusal: re.Pattern[str]
    header: str
    advice: str

    @property
    def flags(self) -> list[str]:
        """clang's options for it."""
        return ["-include", os.path.join(_FOLDER, self.header)]


_ERROR = r"^(.+?:\d+):\d+: error: "
ASSUMPTIONS = (
    Assumption(
        re.compile(
            _ERROR + r"(?:unknown type name|use of undeclared identifier) '([us](?:8|16|32|64))'",
            re.MULTILINE,
        ),
        "bpfmaps_short_types.h",
        'is the kernel\'s own short name, taken as such; to compile elsewhere too, include "vmlinux.h" or '
        "write __{name}",
    ),
    Assumption(
        re.compile(_ERROR + r".*incomplete type '(struct bpf_map_def)'", re.MULTILINE),
        "bpfmaps_map_def.h",
        "is taken as libbpf declared it before 1.0; to compile elsewhere too, declare it, or define the map "
        "in .maps",
    ),
)


_WARNING = re.compile(r"^(.+?):(\d+): warning: ('.*); (to compile elsewhere too, .*)$", re.MULTILINE)


def assumptions_in(warnings: str) -> list[Finding]:
    """What was assumed for an object, from the warnings that `wanted` gave for it."""
    return [Finding(f, int(n), what, spelling) for f, n, what, spelling in _WARNING.findall(warnings)]


def wanted(output: str, given: Iterable[Assumption]) -> tuple[Assumption, str] | None:
    """What clang's `output` asks for beyond what it was given, and a warning that says so."""
    for each in ASSUMPTIONS:
        found = each.refusal.search(output)
        if found and each not in given:
            name = found[2]
            return each, f"{found[1]}: warning: '{name}' {each.advice.format(name=name)}\n"
    return None
