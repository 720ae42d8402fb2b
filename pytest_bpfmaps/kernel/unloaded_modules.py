"""Finds functions and tracepoints of modules that are not loaded."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.known_names import module_of

_MOST_READ = 1 << 20  # bytes
_READERS: dict[str, Callable[[bytes], bytes]] = {
    ".ko": bytes,
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
}


def module_to_load(name: str) -> str | None:
    """Returns the module that has a function, or ``tracepoint:NAME``, and that could be loaded; else None."""
    module = module_of(name) if name else None
    if module is None or Path(f"/sys/module/{module}/initstate").exists():
        return None
    folder = Path(f"/lib/modules/{os.uname().release}")
    try:
        listed = (folder / "modules.dep").read_text()
    except OSError:
        return None
    file = re.escape(module).replace("_", "[-_]")
    found = re.search(rf"^(?:\S*/)?{file}\.ko[^\s:]*(?=:)", listed, re.MULTILINE)
    return module if found and _may_have(folder / found[0], name.rpartition(":")[2]) else None


def _may_have(module: Path, name: str) -> bool:
    """Returns whether a module's file has that name: the names on record are those of several kernels.

    True if the file is compressed in a way that Python can't read quickly.
    """
    read = _READERS.get(module.suffix)
    try:
        packed = module.read_bytes()
        return read is None or len(packed) > _MOST_READ or name.encode() in read(packed)
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        return True


def explain_unloaded(name: str, what: str = "function") -> Explanation | None:
    """Explains that a function or tracepoint is in a module that is not loaded; None if it is not."""
    module = module_to_load(name if what == "function" else f"tracepoint:{name}")
    if module is None:
        return None
    return Explanation(
        f"{name!r} is a {what} of the module {module}, which is not loaded",
        f"load it before: modprobe {module}",
    )
