"""Attached programs: a link keeps a program at its target until it is closed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from .errors import AttachError
from .libbpf import check, ffi, lib


class Link:
    """One program at one target; detached by `close`, at the end of a ``with`` block, or with its object."""

    def __init__(self, handle: Any, on: str) -> None:
        self._handle = handle
        self._on = on

    @property
    def fd(self) -> int:
        """The link's descriptor; of old-style perf event attachments the event's."""
        return int(lib.bpf_link__fd(self._open()))

    def pin(self, path: str | Path) -> None:
        """Keeps the program attached after this process ends, under a name in a bpf file system."""
        check(
            lib.bpf_link__pin(self._open(), os.fsencode(path)),
            AttachError,
            "cannot pin the link of",
            on=self._on,
        )

    def unpin(self) -> None:
        """Removes the pin."""
        check(lib.bpf_link__unpin(self._open()), AttachError, "cannot unpin the link of", on=self._on)

    def close(self) -> None:
        """Detaches. Safe to call again."""
        handle, self._handle = self._handle, ffi.NULL
        if handle != ffi.NULL:
            check(lib.bpf_link__destroy(handle), AttachError, "cannot detach", on=self._on)

    detach = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "detached" if self._handle == ffi.NULL else "attached"
        return f"<link of {self._on}, {state}>"

    def _open(self) -> Any:
        if self._handle == ffi.NULL:
            raise AttachError("cannot use the link of", on=self._on, why="it is detached already")
        return self._handle


class Links:
    """Several links, closed last to first. Iterable."""

    def __init__(self, links: list[Link]) -> None:
        self._links = links

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def close(self) -> None:
        """Detaches all, also when one of them refuses. Safe to call again."""
        close_all(self._links)

    detach = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def close_all(links: list[Link]) -> None:
    """Closes links last to first; the first refusal is raised when all were tried."""
    failed: BaseException | None = None
    for link in reversed(links):
        try:
            link.close()
        except AttachError as e:
            failed = failed or e
    if failed:
        raise failed
