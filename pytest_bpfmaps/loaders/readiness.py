"""Finds out whether a process is ready, without sleeping: by a file, a port, or what a function returns."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Ready = str | re.Pattern[str] | os.PathLike[str] | int | Callable[[Any], Any] | None
"""A line of output (a text or pattern), a file, a TCP port, or a function that gets the process."""

_LISTEN = "0A"  # TCP_LISTEN of the kernel's tcp_states.h


def is_ready(ready: Ready, process: object, pids: Sequence[int], cwd: str) -> Any:
    """Returns whether a file exists, a port has a listener, or a function returns something true.

    A relative path is below `cwd`. The listener may be any process in the network namespace of the first of
    `pids`. A function that raises `AssertionError` is not true yet.
    """
    if isinstance(ready, int):
        return any(ready in _listening(pid) for pid in pids[:1])
    if isinstance(ready, os.PathLike):
        path = os.path.join(cwd, ready)
        return any(os.path.exists(f"/proc/{pid}/root/{path}") for pid in pids[:1]) or os.path.exists(path)
    assert callable(ready)
    try:
        return ready(process)
    except AssertionError:
        return False


def describe_ready(ready: Ready, cwd: str) -> str:
    """Returns what is waited for."""
    if isinstance(ready, int):
        return f"TCP port {ready}"
    if isinstance(ready, os.PathLike):
        return f"the file {os.path.join(cwd, ready)}"
    return f"{getattr(ready, '__name__', 'the function')}() to be true"


def _listening(pid: int) -> set[int]:
    """Returns the TCP ports that somebody listens on in the network namespace of a process."""
    ports = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except OSError:  # gone, or a kernel without IPv6
            continue
        fields = (line.split() for line in lines)
        ports |= {int(each[1].rpartition(":")[2], 16) for each in fields if each[3] == _LISTEN}
    return ports
