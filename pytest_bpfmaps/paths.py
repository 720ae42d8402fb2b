"""The folder of this package, and the folders below the user's cache where it keeps files between runs."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).parent
"""The folder of this package."""


def cache_dir() -> Path:
    """Returns the root of all cached files: ``$BPFMAPS_CACHE``, else the platform's user cache folder."""
    override = os.environ.get("BPFMAPS_CACHE")
    if override:
        return _path(override)
    return _user_cache(*map(os.environ.get, ("XDG_CACHE_HOME", "HOME")))


def objects_dir() -> Path:
    """Returns the folder of compiled objects, which are named by their content."""
    return _below(cache_dir(), "objects")


def kernels_dir() -> Path:
    """Returns the folder of kernels for virtual machines, by name."""
    return _below(cache_dir(), "kernels")


@lru_cache(maxsize=4)
def _user_cache(*variables: str | None) -> Path:
    """Returns the user's cache folder, which depends on these variables."""
    from platformdirs import user_cache_path

    return user_cache_path("pytest-bpfmaps")


@lru_cache(maxsize=4)
def _path(text: str) -> Path:
    return Path(text)


@lru_cache(maxsize=8)
def _below(folder: Path, name: str) -> Path:
    return folder / name


def find_program(name: str) -> str | None:
    """Returns the path of a program that a Python package installs; None if it is not installed.

    The folder of the Python that runs comes first, then the PATH.
    """
    import shutil
    import sys

    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)
