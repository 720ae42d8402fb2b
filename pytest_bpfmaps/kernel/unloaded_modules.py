"""Finds functions and tracepoints of modules that are not loaded."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.known_names import module_of


def module_to_load(name: str) -> str | None:
    """Returns the module that has a function, or ``tracepoint:NAME``, and that could be loaded; else None."""
    module = module_of(name) if name else None
    if module is None or Path(f"/sys/module/{module}/initstate").exists():
        return None
    try:
        listed = Path(f"/lib/modules/{os.uname().release}/modules.dep").read_text()
    except OSError:
        return None
    file = re.escape(module).replace("_", "[-_]")
    return module if re.search(rf"(?:^|/){file}\.ko\S*:", listed, re.MULTILINE) else None


def explain_unloaded(name: str, what: str = "function") -> Explanation | None:
    """Explains that a function or tracepoint is in a module that is not loaded; None if it is not."""
    module = module_to_load(name if what == "function" else f"tracepoint:{name}")
    if module is None:
        return None
    return Explanation(
        f"{name!r} is a {what} of the module {module}, which is not loaded",
        f"load it before: modprobe {module}",
    )
