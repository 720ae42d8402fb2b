"""Checks the flags of a map's commands, which the kernel takes as a number of 64 bits."""

from __future__ import annotations

from typing import Any

from pytest_bpfmaps.errors import MapOverflowError, MapTypeError
from pytest_bpfmaps.kernel import map_flags


def flags_of(flags: Any) -> int:
    """Returns the flags. Raises `MapTypeError` for what is no int, and `MapOverflowError` beyond 64 bits."""
    if isinstance(flags, int):
        if 0 <= flags < 1 << 64:
            return flags
        raise MapOverflowError(
            "cannot use flags", on=repr(flags), why="the kernel takes 64 bits, without a sign"
        )
    fix = "give a number, such as BPF_NOEXIST | BPF_F_LOCK, which pytest_bpfmaps exports"
    if isinstance(flags, str) and hasattr(map_flags, flags):
        fix = f"from pytest_bpfmaps import {flags}; flags={flags}"
    why = f"they are {type(flags).__name__}, not a number"
    raise MapTypeError("cannot use flags", on=repr(flags), why=why, fix=fix)
