"""Opens ``libbpf.so.1`` once, when it is first needed."""

from __future__ import annotations

import os
from typing import Any

from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.libbpf import log
from pytest_bpfmaps.libbpf._declarations import ffi as _ffi

ffi: Any = _ffi
SONAME = "libbpf.so.1"


class Library:
    """libbpf's functions as attributes; the file is opened at the first access.

    ``$BPFMAPS_LIBBPF`` names another file, for a libbpf that is not installed.
    """

    def __init__(self, soname: str = SONAME) -> None:
        self._soname = soname
        self._handle: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        handle = self._open()
        try:
            function = getattr(handle, name)
        except AttributeError as e:
            raise self._lacks(name, handle) from e
        setattr(self, name, function)  # later accesses do not come here again
        return function

    def has(self, name: str) -> bool:
        """Returns whether this libbpf exports the function `name`.

        Raises `UnsupportedError` without any libbpf.
        """
        try:
            getattr(self, name)
        except UnsupportedError as e:
            if self._handle is None:
                raise e
            return False
        return True

    def _open(self) -> Any:
        if self._handle is None:
            path = os.environ.get("BPFMAPS_LIBBPF") or self._soname
            try:
                handle = ffi.dlopen(path)
            except OSError as e:
                raise UnsupportedError(
                    "cannot open libbpf",
                    on=path,
                    why=str(e).rsplit(f"{path}: ", 1)[-1],
                    fix="install libbpf 1.1 or later: 'apt-get install libbpf1' on Debian and Ubuntu, "
                    "'dnf install libbpf' on Fedora",
                ) from e
            log.install(handle)
            self._handle = handle
        return self._handle

    def forget(self) -> None:
        """Has the next access open the file again, which `$BPFMAPS_LIBBPF` may name now."""
        vars(self).clear()
        Library.__init__(self, SONAME)

    def _lacks(self, name: str, handle: Any) -> UnsupportedError:
        release = f"{handle.libbpf_major_version()}.{handle.libbpf_minor_version()}"
        return UnsupportedError(
            f"cannot call {name}() of",
            on=f"libbpf {release}",
            why="this version does not export it",
            fix="install a newer libbpf",
        )


lib = Library()


def version() -> tuple[int, int]:
    """Returns libbpf's (major, minor) version."""
    return int(lib.libbpf_major_version()), int(lib.libbpf_minor_version())
