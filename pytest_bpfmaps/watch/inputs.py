"""Finds the files that an object of the cache was made from."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pytest_bpfmaps import paths
from pytest_bpfmaps.compiler.cache import ObjectCache

_SYSTEM = ("/usr", "/lib", "/opt")


def inputs_of(made: Path, folders: Iterable[str]) -> set[Path]:
    """Returns the files of an object that a person may change: those in `folders`, and no system headers."""
    system = (*_SYSTEM, str(paths.cache_dir()))
    return {
        path
        for path in _all(made)
        if any(map(path.is_relative_to, folders)) or not any(map(path.is_relative_to, system))
    }


@cache
def _all(made: Path) -> frozenset[Path]:
    cache = ObjectCache(paths.objects_dir())
    return frozenset(Path(file.path) for file in cache.inputs_of(made))
