"""What tests that boot guests themselves share: finding the guests' QEMU, and waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def qemus_for(folder: Path) -> list[int]:
    """QEMU processes whose gateway works in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_guest = b"bpfmaps.stream" in (process / "cmdline").read_bytes()
            if is_guest and (process / "cwd").resolve() == folder.resolve():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def wait_until(condition: Callable[[], object], seconds: float = 90.0) -> None:
    """Returns as soon as it is true; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
