"""Writes the file of a report so that an earlier one stays as it was when that fails."""

from __future__ import annotations

from pathlib import Path

from pytest_bpfmaps.cache.stored_files import write


def put(target: Path, content: str | bytes) -> None:
    """Writes `target` as a whole or not at all; ``/dev/stdout`` and the like as usual. Raises `OSError`."""
    if target.exists() and not target.is_file():
        raw = content if isinstance(content, bytes) else content.encode(errors="surrogateescape")
        target.write_bytes(raw)
    else:
        write(target.resolve(), content)
