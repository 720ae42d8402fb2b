"""Reads what is stored about an object that `linker.link` made of several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_bpfmaps.cache.stored_files import read_checked


def linked_inputs(path: Path) -> list[Path]:
    """Returns the objects from which `link` made the object at `path`; an empty list for any other object."""
    # In a guest the file belongs to the host, which the guest trusts.
    return [Path(name) for name in facts(path, only_ours=False).get("objects", [])]


def facts(path: Path, *, only_ours: bool = True) -> dict[str, Any]:
    """Returns what is stored about an object that was linked: ``objects``, ``digest``."""
    stored: dict[str, Any] = json.loads(read_checked(facts_file(path), only_ours=only_ours) or "{}")
    return stored


def facts_file(path: Path) -> Path:
    """Returns the file in which these facts are."""
    return path.with_suffix(".linked")
