"""Maps as Python values: the dict protocol, the kernel's verbs, types from BTF.

One module per family of map types; `registry` says which class serves which type.
"""

from __future__ import annotations

from pytest_bpfmaps.kernel.types import MapType
from pytest_bpfmaps.maps.array import ArrayMap
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.classes import make_map
from pytest_bpfmaps.maps.hash import HashMap
from pytest_bpfmaps.maps.info import MapInfo, map_info
from pytest_bpfmaps.maps.percpu import PerCpu, PerCpuArrayMap, PerCpuHashMap
from pytest_bpfmaps.maps.registry import map_by_id, pinned_map

__all__ = [
    "ArrayMap",
    "HashMap",
    "Map",
    "MapInfo",
    "MapType",
    "PerCpu",
    "PerCpuArrayMap",
    "PerCpuHashMap",
    "make_map",
    "map_by_id",
    "map_info",
    "pinned_map",
]
