"""The private names of Python's own library that are used."""

from __future__ import annotations

from importlib.metadata import PathDistribution
from typing import Any


def metadata_folder(package: PathDistribution) -> Any:
    """Returns the folder with the metadata of an installed package, as `PathDistribution` takes it."""
    return package._path
