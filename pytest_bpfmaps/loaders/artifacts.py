"""Copies a file that an agent wrote to where it stays after the test: on the host, also from a guest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_bpfmaps.errors import LoaderError, remedy, strerror
from pytest_bpfmaps.loaders.process_tree import ProcessStat
from pytest_bpfmaps.vm.protocol.artifacts import send_file
from pytest_bpfmaps.vm.protocol.rpc import Host


def fetch_of_process(
    pid: int, members: Callable[[], Iterable[ProcessStat]], source: Path, folder: Path, name: str, *, on: str
) -> Path:
    """Copies a file as `fetch` does. While the process runs, its own root has the file.

    `members` returns the processes that run. When this one has ended, another may have its id.
    """

    def runs() -> bool:
        return any(each.pid == pid for each in members())

    own_root = Path(f"/proc/{pid}/root{source}")
    there = own_root if runs() and own_root.exists() else source
    try:
        return fetch(there, folder, name, on)
    except LoaderError:
        if there == source or runs():
            raise
    return fetch(source, folder, name, on)  # it ended meanwhile


def fetch(source: Path, folder: Path, name: str, on: str) -> Path:
    """Copies `source` into `folder` of the host, under `name`, and returns its path there.

    Raises `LoaderError` if the file can't be read or written, and `VmError` if the host refuses it.
    """
    try:
        host = Host.connect()
        if host is not None:
            return send_file(host, source, folder, name)
        target = folder / name
        if not (target.exists() and os.path.samefile(source, target)):
            shutil.copyfile(source, target)
        return target
    except OSError as e:
        raise LoaderError(
            f"cannot fetch {name!r}",
            on=f"from {source} of {on}",
            why=strerror(e.errno or 0),
            fix=remedy(
                e.errno,
                "give the path of a file that the agent has written; wait until it is there: ready=Path(…)",
            ),
            errno=e.errno,
        ) from e
