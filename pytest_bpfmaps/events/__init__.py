"""Records that programs send to user space: captured, typed, waited for.

Importing this floor teaches `maps` the buffer types.
"""

from __future__ import annotations

from ..maps import CLASSES, MapType
from .capture import Capture
from .perf import PerfEventArrayMap
from .ringbuf import RingBufMap

CLASSES[MapType.RINGBUF] = RingBufMap
CLASSES[MapType.PERF_EVENT_ARRAY] = PerfEventArrayMap

__all__ = ["Capture", "PerfEventArrayMap", "RingBufMap"]
