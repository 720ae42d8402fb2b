"""Buffers for the verifier's logs.

Every program is loaded with a log level that costs almost nothing (``BPF_LOG_STATS``, Linux 5.2, commit
06ee7115b0d1): it gives statistics, and the complaint if the program is rejected. The whole log may have a
hundred megabytes, so it is requested only to explain a rejection.
"""

from __future__ import annotations

import mmap
from typing import Any

from pytest_bpfmaps.libbpf import ffi, lib, to_str

LEVEL_STATS = 4
LEVEL_INSTRUCTIONS = 1
LEVEL_EACH_STEP = 2
_STATS_SIZE = 1 << 16
WHOLE_SIZES = (1 << 20, (1 << 24) - 1, 1 << 27)
"""Sizes in bytes to try for a whole log. Kernels before 5.16 take less than 16 MiB."""


class LogBuffer:
    """A buffer that libbpf gives to the kernel for one program; it uses memory only when it is written."""

    def __init__(self, program: Any, level: int, size: int) -> None:
        self._memory = mmap.mmap(-1, size)
        self._pointer = ffi.from_buffer(self._memory)
        lib.bpf_program__set_log_buf(program, self._pointer, size)
        lib.bpf_program__set_log_level(program, level)

    @property
    def text(self) -> str:
        """The text that the kernel wrote, up to the NUL."""
        return to_str(ffi.cast("char *", self._pointer))


def stats_buffers(programs: dict[str, Any]) -> dict[str, LogBuffer]:
    """Returns a small buffer for each program; `programs` has libbpf handles by name."""
    return {name: LogBuffer(handle, LEVEL_STATS, _STATS_SIZE) for name, handle in programs.items()}
