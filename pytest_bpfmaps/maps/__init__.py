"""Maps as Python values: the dict protocol, the kernel's operations, types from BTF.

Each family of map types has a module in `families`, whose classes register themselves.
"""

from __future__ import annotations

from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.classes import make_map
from pytest_bpfmaps.maps.families.array import ArrayMap
from pytest_bpfmaps.maps.families.hash import HashMap
from pytest_bpfmaps.maps.families.percpu import PerCpu, PerCpuArrayMap, PerCpuHashMap
from pytest_bpfmaps.maps.families.registry import map_by_id, pinned_map
from pytest_bpfmaps.maps.info import MapInfo, map_info

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
