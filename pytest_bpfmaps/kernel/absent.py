"""Whether a program was refused because this kernel lacks what its section names."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

from ..errors import UnsupportedError
from .features import Feature, probe
from .known_names import module_of
from .unknown_names import refuse_unknown


def absent_target(section: str) -> Feature | None:
    """The attach point of a section, when a probe shows that this kernel lacks it and another has it.

    None for one that is there, for a name that no kernel has, and for a function of a module that could be
    loaded.
    """
    try:
        feature = probe("attach", section)
        if feature:
            return None
        with warnings.catch_warnings(action="error", category=UserWarning):
            refuse_unknown("attach", section)
    except (UnsupportedError, UserWarning):
        return None
    return None if module_to_load(function_of(section)) else feature


def function_of(section: str) -> str:
    """The function that a section names; empty when it names none."""
    found = re.match(
        r"\??(?:k(?:ret)?probe(?:\.multi|\.session)?|f(?:entry|exit|mod_ret)(?:\.s)?)/(\w+)", section
    )
    return found[1] if found else ""


def module_to_load(function: str) -> str | None:
    """The name of a module that has the function and that this machine has for its kernel, not loaded."""
    module = module_of(function) if function else None
    if module is None or Path(f"/sys/module/{module}").exists():
        return None
    try:
        listed = Path(f"/lib/modules/{os.uname().release}/modules.dep").read_text()
    except OSError:
        return None
    name = re.escape(module).replace("_", "[-_]")
    return module if re.search(rf"(?:^|/){name}\.ko\S*:", listed, re.MULTILINE) else None
