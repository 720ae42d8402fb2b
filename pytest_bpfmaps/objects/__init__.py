"""BPF objects: opens, configures and loads them."""

from __future__ import annotations

from pytest_bpfmaps.objects.loaded import LoadedObject
from pytest_bpfmaps.objects.map_spec import MapSpec
from pytest_bpfmaps.objects.opened import OpenedObject

__all__ = ["LoadedObject", "MapSpec", "OpenedObject"]
