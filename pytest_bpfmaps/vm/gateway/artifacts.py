"""Stores files that a guest sends: only below the folder of this run's temporary files."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from pytest_bpfmaps.errors import VmError, remedy

_LARGEST = 256 << 20  # bytes of all files of a guest


class Artifacts:
    """The files of one guest; `base` is the folder that they go below, or None.

    The guest is not trusted. It names a folder below `base` and a name, and it makes new files only.
    """

    def __init__(self, base: str | None) -> None:
        self._base = None if base is None else Path(base).resolve()
        self._size = 0
        self._mine: set[Path] = set()

    def store(self, argument: str) -> str:
        """Stores a piece of a file, and returns its path. Raises `VmError`."""
        message = json.loads(argument)
        folder, name, is_first = str(message["folder"]), str(message["name"]), bool(message["first"])
        data = base64.b64decode(message["data"])
        path = self._place(folder, name)
        self._size += len(data)
        if self._size > _LARGEST:
            why = f"the files of a guest may have {_LARGEST} bytes together"
            raise self._refusal(name, why, "fetch less, or compress it in the guest")
        if not is_first and path not in self._mine:
            raise self._refusal(name, "it was not begun", "send its first piece first")
        mode = os.O_CREAT | os.O_EXCL if is_first else os.O_APPEND
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | mode, 0o600), "wb") as file:
                file.write(data)
        except OSError as e:
            fix = remedy(e.errno, "choose another name: artifact(path, name=…)")
            raise self._refusal(name, e.strerror or str(e), fix or "") from e
        self._mine.add(path)
        return str(path)

    def _place(self, folder: str, name: str) -> Path:
        if self._base is None:
            why = "this guest runs on another machine"
            raise self._refusal(name, why, "let the test read the file in the guest, and print what matters")
        where = Path(folder).resolve() if "\0" not in folder else self._base
        if self._base not in where.parents:
            raise self._refusal(name, f"{folder} is not below {self._base}", "copy it to tmp_path")
        if not name or name in (".", "..") or "/" in name or "\0" in name:
            raise self._refusal(name, "that is no name of a file", "give a name without slashes")
        return where / name

    def _refusal(self, name: str, why: str, fix: str) -> VmError:
        return VmError("cannot copy a file of a guest to the host", on=repr(name), why=why, fix=fix)
