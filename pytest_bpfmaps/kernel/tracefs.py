"""Finds tracefs, in which the kernel shows its tracepoints and other tracing."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.mounts import how_to_mount

_PLACES = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))


def tracefs() -> Path | None:
    """Returns where tracefs is mounted; None if it is not."""
    return next((p for p in _PLACES if (p / "events").is_dir()), None)


def no_tracefs() -> Explanation:
    """Returns why there is no tracefs with tracepoints, and what to do about it."""
    elsewhere = "run the test in a virtual machine: pytest --bpf-kernel=6.1"
    if any(map(os.path.ismount, _PLACES)):
        return Explanation(
            "this kernel has no tracepoints: its tracefs is mounted, but has no events", elsewhere
        )
    command = how_to_mount("tracefs")
    if not command:
        return Explanation("this kernel has no tracefs", elsewhere)
    return Explanation("tracefs is not mounted", f"{command}; or {elsewhere}")
