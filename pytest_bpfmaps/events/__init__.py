"""Captures records that programs send to user space, decodes them, and waits for them.

Importing this package registers the classes of buffers at `Map`.
"""

from __future__ import annotations

from pytest_bpfmaps.events.capture import Capture
from pytest_bpfmaps.events.perf_buffer import PerfEventArrayMap
from pytest_bpfmaps.events.ringbuf import RingBufMap

__all__ = ["Capture", "PerfEventArrayMap", "RingBufMap"]
