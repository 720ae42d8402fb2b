"""The configuration for ``__kconfig`` variables: what libbpf reads, and options that replace the kernel's."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from pytest_bpfmaps.errors import LoadError, MapTypeError, NameLookupError, closest
from pytest_bpfmaps.libbpf import ffi

KconfigValue = bool | int | str
"""The value of an option: y or n, a number, or ``"m"``, ``"y"``, ``"n"`` and other texts."""

_PREFIX = "CONFIG_"


def find_kconfig(is_used: bool, given: Mapping[str, KconfigValue]) -> object:
    """Returns the configuration for an object whose ``__kconfig`` variables use it, else NULL.

    Its first lines are `given`: of several lines for one option libbpf takes the first. The configuration of
    the kernel is needed in a guest only, where libbpf would find the host's in /boot.
    """
    lines = "".join(f"{name}={_written(name, value)}\n" for name, value in given.items()).encode()
    path = os.environ.get("BPFMAPS_KERNEL_CONFIG")
    if path and is_used and Path(path).is_file():
        lines += Path(path).read_bytes()
    return ffi.new("char[]", lines) if lines else ffi.NULL


def check_options(given: Mapping[str, KconfigValue], declared: Collection[str], on: str) -> None:
    """Raises an error for an option that the object does not declare, or that libbpf finds out itself."""
    for name in given:
        if name not in declared:
            raise NameLookupError(
                f"no __kconfig variable {name!r}", on=f"in {on}", fix=closest(name, sorted(declared))
            )
        if not name.startswith(_PREFIX):
            raise LoadError(
                f"cannot set {name}", on=f"of {on}", why="libbpf finds its value out itself, by a probe"
            )


def _written(name: str, value: object) -> str:
    match value:
        case bool():
            return "y" if value else "n"
        case int() | "y" | "m" | "n":
            return str(value)
        case str() if '"' not in value and "\n" not in value:
            return f'"{value}"'
    raise MapTypeError(
        f"cannot set {name}",
        on=f"to {value!r}",
        why="an option has no such value",
        fix='give True, False, a number, "m", or another text without quotation marks',
    )
