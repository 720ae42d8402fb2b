"""Explains why a process does not end after SIGTERM: it ignores the signal, or blocks it."""

from __future__ import annotations

import signal
from pathlib import Path

_BIT = 1 << (signal.SIGTERM - 1)

CONTINUE = "a signal or a debugger has stopped it: agent.send_signal(signal.SIGCONT)"
"""The remedy for a process that is stopped."""


def explain_unheard(pid: int) -> tuple[str, str] | None:
    """Returns why the process does not notice SIGTERM, and what to do; None if it notices it, or has ended.

    The first text continues a sentence that says that it runs.
    """
    masks = _signal_masks(pid)
    if masks.get("SigIgn", 0) & _BIT:
        return (
            f", because process {pid} ignores SIGTERM",
            "agent.kill(), or agent.send_signal(signal.SIGINT)",
        )
    if masks.get("SigBlk", 0) & _BIT:
        return (
            f", because process {pid} blocks SIGTERM",
            "let it read the signal, from a signalfd perhaps; or agent.kill()",
        )
    return None


def _signal_masks(pid: int) -> dict[str, int]:
    """Returns the sets of ignored and blocked signals, by their names in proc(5)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").split("\n")
    except OSError:
        return {}
    fields = (line.partition(":") for line in lines)
    return {name: int(value, 16) for name, _, value in fields if name in ("SigIgn", "SigBlk")}
