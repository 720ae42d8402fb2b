"""What is used of Python's own library beyond its public names."""

from __future__ import annotations

from importlib.metadata import PathDistribution
from typing import Any


def metadata_folder(package: PathDistribution) -> Any:
    """The folder with the metadata of an installed package, a path that `PathDistribution` takes."""
    return package._path
