"""Finds out whether a program was refused because this kernel lacks what its section names."""

from __future__ import annotations

import re

from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.kernel.features import Feature, probe
from pytest_bpfmaps.kernel.privileges import may_load_everything
from pytest_bpfmaps.kernel.unknown_names import find_unknown
from pytest_bpfmaps.kernel.unloaded_modules import module_to_load


def absent_target(section: str) -> Feature | None:
    """Returns the attach point of a section, if a probe shows that only this kernel lacks it.

    Returns None for an attach point that exists, for a name that no kernel has, and for a function of a
    module that could be loaded. It also returns None if this thread may lack a capability.
    """
    if not may_load_everything():
        return None
    try:
        feature = probe("attach", section)
    except UnsupportedError:
        return None
    if feature or find_unknown("attach", section):
        return None
    return None if module_to_load(named_target(section)) else feature


def named_target(section: str) -> str:
    """Returns the function that a section names, or ``tracepoint:NAME``; empty if it names neither."""
    if found := re.match(r"\??(?:tracepoint|tp|raw_tp|raw_tracepoint|tp_btf)/(?:\w+/)?(\w+)$", section):
        return f"tracepoint:{found[1]}"
    kinds = r"k(?:ret)?probe(?:\.multi|\.session)?|f(?:entry|exit|mod_ret)(?:\.s)?"
    found = re.match(rf"\??(?:{kinds})/(\w+)", section)
    return found[1] if found else ""
