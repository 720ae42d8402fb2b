"""Records that programs send to user space: captured, typed, waited for.

Importing this floor teaches `maps` the buffer types.
"""

from __future__ import annotations

from ..maps import CLASSES, MapType
from .capture import Capture
from .ringbuf import RingBufMap

CLASSES[MapType.RINGBUF] = RingBufMap

__all__ = ["Capture", "RingBufMap"]
