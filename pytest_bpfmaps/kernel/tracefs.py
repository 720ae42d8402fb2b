"""Where the kernel shows its tracepoints and the rest of its tracing."""

from __future__ import annotations

from pathlib import Path

_PLACES = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))


def tracefs() -> Path | None:
    """Where tracefs is mounted."""
    return next((p for p in _PLACES if (p / "events").is_dir()), None)
