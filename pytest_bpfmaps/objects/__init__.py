"""A BPF object: opened, configured, loaded."""

from __future__ import annotations

from .loaded import LoadedObject
from .map_spec import MapSpec
from .opened import OpenedObject

__all__ = ["LoadedObject", "MapSpec", "OpenedObject"]
