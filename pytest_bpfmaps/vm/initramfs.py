"""The initramfs of a guest whose state is saved: busybox, modules to mount the host's files, and Python.

Every file of Python's has the host's path, so that what is imported before the state is saved looks as if it
had come from the host.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm import bytecode
from pytest_bpfmaps.vm.catalogue import Kernel
from pytest_bpfmaps.vm.cpio import Cpio
from pytest_bpfmaps.vm.elf import Elf

MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
_FOLDERS = ("/proc", "/sys", "/dev", "/run", "/tmp", "/root")

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /usr/bin /sbin /usr/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "$module"; done < /modules/order
exec {python}
"""


def write(
    target: Path, kernel: Kernel, busybox: str, files: Iterable[str], environment: Mapping[str, str]
) -> None:
    """Writes the archive to `target`. Raises VmError when the kernel's modules can't be found."""
    with target.open("wb") as out:
        archive = Cpio(out, _loaded_part)
        for folder in _FOLDERS:
            archive.add_folder(folder)
        archive.add_device("/dev/console", 5, 1)
        archive.add_bytes("/bin/busybox", Path(busybox).read_bytes(), 0o755)
        archive.add_bytes("/init", INIT.format(python=_python(environment)).encode(), 0o755)
        order = []
        for path in _modules(kernel):
            name = f"/modules/{path.name.split('.')[0]}.ko"
            archive.add_bytes(name, decompress(path))
            order.append(name)
        archive.add_bytes("/modules/order", "".join(f"{name}\n" for name in order).encode())
        files = list(files)
        for name, data in bytecode.lacking(files):
            archive.add_bytes(name, data)
        for file in files:
            archive.add_tree(file)
        archive.close()


def _loaded_part(path: Path) -> bytes:
    """A file's content; of a library what is loaded, for the rest would only be memory of the guest."""
    data = path.read_bytes()
    try:
        return data[: Elf(data).loaded_size()]
    except (ValueError, struct.error):
        return data


def search_path() -> list[str]:
    """Where Python looks for modules, the same for all projects: without $PYTHONPATH."""
    ours = str(Path(__file__).resolve().parents[2])
    added = {"", os.getcwd(), os.path.dirname(os.path.abspath(sys.argv[0]))}
    added |= {os.path.abspath(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    found = [p for p in sys.path if p not in added]
    return found if ours in found else [*found, ours]


def _python(environment: Mapping[str, str]) -> str:
    program = f"import sys; sys.path[:] = {search_path()!r}; "
    program += "from pytest_bpfmaps.vm import zygote; zygote.run()"
    settings = [f"{name}={value}" for name, value in environment.items()]
    words = ["env", "HOME=/root", "PATH=/bin:/sbin", *settings, sys.executable, "-u", "-P", "-c", program]
    return shlex.join(words)


def _modules(kernel: Kernel) -> Iterator[Path]:
    """The files of `MODULES` and of what they need, in the order to insert them, without built-in ones."""
    if kernel.modules is None:
        return
    folder = kernel.modules / "lib" / "modules" / kernel.release
    needs, built_in = _dependencies(folder), _names(folder / "modules.builtin")
    done: set[str] = set()
    for wanted in MODULES:
        if wanted in built_in:
            continue
        if wanted not in needs:
            raise VmError(
                "cannot prepare a guest for",
                on=f"kernel {kernel.name} ({kernel.release})",
                why=f"it has no module {wanted}",
                fix="use a generic kernel: cloud images leave out what guests share files with",
            )
        for relative in reversed(needs[wanted]):
            if relative not in done:
                done.add(relative)
                yield folder / relative


def _dependencies(folder: Path) -> dict[str, list[str]]:
    """``modules.dep``: for each module its file, then those that it needs."""
    found = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        file, _, others = line.partition(":")
        found[_name(file)] = [file, *others.split()]
    return found


def _names(path: Path) -> set[str]:
    return {_name(line) for line in path.read_text().splitlines()} if path.exists() else set()


def _name(path: str) -> str:
    return re.sub(r"\.ko(\.\w+)?$", "", os.path.basename(path)).replace("-", "_")


def decompress(path: Path) -> bytes:
    """A kernel module's ELF bytes."""
    raw = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(raw)
        case ".gz":
            return gzip.decompress(raw)
        case ".bz2":
            return bz2.decompress(raw)
        case ".zst":
            return subprocess.run(["zstd", "-dcq"], input=raw, capture_output=True, check=True).stdout
        case _:
            return raw
