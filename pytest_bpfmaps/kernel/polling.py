"""Asks again and again, for what gives no event when it happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pytest_bpfmaps.errors import CaptureTimeoutError
from pytest_bpfmaps.kernel.release import shown_timeout, timeout_scale

_SHORTEST, _LONGEST = 0.001, 0.05  # seconds


def pauses(timeout: float) -> Iterator[float]:
    """Gives the seconds to wait before the next question, each time longer, until `timeout` is over.

    `timeout` is in seconds, which begin now. The time is longer where the CPU is emulated.
    """
    return _until(time.monotonic() + timeout * timeout_scale())


def _until(end: float) -> Iterator[float]:
    pause = _SHORTEST
    while (left := end - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 2, _LONGEST)


def wait_until(condition: Callable[[], Any], timeout: float) -> Any:
    """Does what `pytest_bpfmaps.harness.Bpf.wait_until` says."""
    waits = pauses(timeout)
    while True:
        last: Any
        try:
            last = condition()
            if last:
                return last
        except AssertionError as e:
            last = e
        pause = next(waits, None)
        if pause is None:
            raise CaptureTimeoutError(
                f"waited {shown_timeout(timeout)} until {_describe(condition)}",
                why=f"it last gave {last!r}",
            ) from (last if isinstance(last, AssertionError) else None)
        time.sleep(pause)


def _describe(condition: Callable[[], Any]) -> str:
    name = getattr(condition, "__name__", "the condition")
    if name != "<lambda>":
        return f"{name}() is true"
    code = condition.__code__
    return f"the lambda at {Path(code.co_filename).name}:{code.co_firstlineno} is true"
