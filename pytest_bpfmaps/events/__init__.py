"""Records that programs send to user space: captured, typed, waited for.

Importing this floor registers the classes of buffers at `Map`.
"""

from __future__ import annotations

from .capture import Capture
from .perf import PerfEventArrayMap
from .ringbuf import RingBufMap

__all__ = ["Capture", "PerfEventArrayMap", "RingBufMap"]
