"""Provides ``vmlinux.h``, a kernel's types as a C header: makes it from BTF, or copies a given header."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from pytest_bpfmaps.cache.stored_files import (
    digest,
    discard,
    place,
    read,
    read_checked,
    scratch_folder,
    write_checked,
)
from pytest_bpfmaps.compiler.cache_in_use import steady, use
from pytest_bpfmaps.errors import CompileError, strerror

RUNNING_KERNEL = "/sys/kernel/btf/vmlinux"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FORMAT = "2"  # of the header; part of its folder's name


class VmlinuxFile:
    """The file from which ``vmlinux.h`` is made: raw BTF, or a header. `root` is the cache.

    `find` returns the path, or None for the running kernel's BTF. It is called only for a source that needs
    the header.
    """

    def __init__(self, find: Callable[[], str | None], root: Path) -> None:
        self._find = find
        self._root = root

    @cached_property
    def path(self) -> str:
        """The file's path."""
        return self._find() or RUNNING_KERNEL

    def digest(self) -> str | None:
        """Returns a digest of the content; None if there is no such file. An unchanged file is read once."""
        try:
            return self._digest
        except OSError:
            return None

    @cached_property
    def _digest(self) -> str:
        memo = self._root / "btf" / digest(self._identity())
        known = read_checked(memo)
        if known is not None:
            return known
        content = digest(Path(self.path).read_bytes())
        with contextlib.suppress(OSError):
            write_checked(memo, content)
        return content

    def _identity(self) -> str:
        """Returns a text that changes with the content.

        The times of a file in sysfs do not show changes, so the running kernel is identified by its boot.
        """
        status = os.stat(self.path)
        if self.path == RUNNING_KERNEL:
            return f"boot {_BOOT_ID.read_text()}"
        return f"{self.path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"

    def header_folder(self) -> Path:
        """Returns the folder with this kernel's ``vmlinux.h``; makes it if it does not exist yet.

        Raises `CompileError` if the BTF can't be found or read, and `OSError` if the cache can't be written.
        """
        try:
            name = f"{self._digest[:12]}-{_FORMAT}"
        except OSError as e:
            raise self._unavailable(e) from e
        folder = self._root / "vmlinux" / name
        with steady(self._root):
            is_there = _is_intact(folder / "vmlinux.h")
            use(self._root, folder)
        if not is_there:
            # Two processes may both come here: they write the same text, and the rename is atomic.
            self._write(folder / "vmlinux.h")
        return folder

    def _write(self, target: Path) -> None:
        from pytest_bpfmaps.libbpf.btf_dump import dump_header

        with scratch_folder(self._root) as scratch:
            if _is_header(self.path):
                shutil.copyfile(self.path, scratch / "vmlinux.h")
            else:
                dump_header(self.path, scratch / "vmlinux.h")
            target.parent.mkdir(parents=True, exist_ok=True)
            write_checked(_mark(target), digest((scratch / "vmlinux.h").read_bytes()))
            place(scratch / "vmlinux.h", target)

    def _unavailable(self, error: OSError) -> CompileError:
        running = self.path == RUNNING_KERNEL
        return CompileError(
            "cannot make vmlinux.h",
            on=f"from {self.path}",
            why=strerror(error.errno or 0),
            fix="the running kernel was built without CONFIG_DEBUG_INFO_BTF: run the test in a VM "
            "(--bpf-kernel), or put a vmlinux.h of your own beside the source"
            if running
            else "name an existing raw BTF file, such as one that 'bpfmaps kernels fetch' extracted",
            errno=error.errno,
        )


def _is_intact(header: Path) -> bool:
    """Returns whether the header exists, and is unchanged since it was written."""
    known = read_checked(_mark(header))
    if known is None:
        return False
    try:
        intact = digest(read(header)) == known
    except OSError:
        return False
    if not intact:
        discard(header)
    return intact


def _mark(header: Path) -> Path:
    """Returns the file with the digest of a header."""
    return header.with_suffix(".digest")


def _is_header(path: str) -> bool:
    """Returns whether the file is C text: BTF and ELF files begin with bytes that no C text has."""
    with open(path, "rb") as file:
        start = file.read(4)
    return bool(start) and start[:2] not in (b"\x9f\xeb", b"\xeb\x9f") and start != b"\x7fELF"
