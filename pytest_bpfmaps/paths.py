"""Where this package is, and where it keeps files between runs: all below the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).parent
"""The folder of this package."""


def cache_dir() -> Path:
    """The root of all cached files: ``$BPFMAPS_CACHE``, else the platform's user cache folder."""
    override = os.environ.get("BPFMAPS_CACHE")
    if override:
        return Path(override)
    from platformdirs import user_cache_path

    return user_cache_path("pytest-bpfmaps")


def objects_dir() -> Path:
    """Compiled objects, by content."""
    return cache_dir() / "objects"


def kernels_dir() -> Path:
    """Kernels for virtual machines, by name."""
    return cache_dir() / "kernels"


def find_program(name: str) -> str | None:
    """The path of a program that Python packages bring: beside this Python, else on the PATH; or None."""
    import shutil
    import sys

    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)
