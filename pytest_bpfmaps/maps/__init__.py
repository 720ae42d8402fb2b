"""Maps as Python values: the dict protocol, the kernel's verbs, types from BTF.

One module per family of map types; `registry` says which class serves which type.
"""

from __future__ import annotations

from ..kernel.types import MapType
from .array import ArrayMap
from .base import Map
from .classes import make_map
from .hash import HashMap
from .info import MapInfo, map_info
from .percpu import PerCpu, PerCpuArrayMap, PerCpuHashMap
from .registry import map_by_id, pinned_map

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
