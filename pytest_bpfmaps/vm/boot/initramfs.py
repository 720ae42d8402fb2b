"""What a guest whose state is saved boots from: busybox, modules to mount the host's files, and Python.

Every file of Python's has the host's path, so that what is imported before the state is saved looks as if it
had come from the host. These files come in an archive of their own, read over 9p: the kernel would leave what
it unpacks an initramfs from in the memory that is saved.
"""

from __future__ import annotations

import os
import re
import shlex
import site
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pytest_bpfmaps.elf.reader import loaded_size, open_elf
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.paths import PACKAGE
from pytest_bpfmaps.vm.boot import bytecode
from pytest_bpfmaps.vm.boot.cpio import Cpio
from pytest_bpfmaps.vm.guest import supervisor
from pytest_bpfmaps.vm.guest.init import CANNOT_MOUNT, TAG
from pytest_bpfmaps.vm.kernels.decompress import decompress_module
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.architecture import architecture

MODULES = ("virtio_console", "9pnet_virtio", "9p", "overlay")  # and that of the bus
MOST_OF_A_MODULE = 256 << 20  # bytes, unpacked; the largest, with all of its debug information, has 100 MB
MOUNT = "ro,trans=virtio,version=9p2000.L,msize=512000"
# Linux 5.x is faster with `dd bs=512k` and no page cache: with one it reads a page at a time. Later ones are
# faster with `cat` and cache=loose.
READ_WHOLE = (MOUNT, "dd bs=512k if=")
READ_AHEAD = (f"{MOUNT},cache=loose", "cat ")
PYTHON_MODULES, FIRST = "/modules/python", "/modules/first.pyc"
_FOLDERS = ("/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/host")

INIT = """#!/busybox/busybox sh
/busybox/busybox --install -s /busybox
export PATH=/busybox
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "$module"; done < /modules/order
cd /
mount -t 9p -o {options} {tag} /host && {read}{archive} | cpio -idmu && umount /host || {{
    echo "bpfmaps: this kernel {complaint}"
    reboot -f
}}
exec {python}
"""


def write(
    target: Path, kernel: Kernel, busybox: str, archive: Path, python: str, *, network: bool = False
) -> None:
    """Writes the initramfs to `target`, for a guest that unpacks `archive` and runs the command `python`.

    With `network`, it has the module for a card. Raises VmError when the kernel's modules can't be found.
    """
    host = shlex.quote(f"/host{archive.resolve()}")  # the guest would follow links to its own root
    options, read = READ_WHOLE if kernel.release.startswith("5.") else READ_AHEAD
    facts = {"options": options, "tag": TAG, "read": read, "archive": host, "complaint": CANNOT_MOUNT}
    init = INIT.format(**facts, python=python)
    with target.open("wb") as out:
        initramfs = Cpio(out)
        for folder in _FOLDERS:
            initramfs.add_folder(folder)
        initramfs.add_device("/dev/console", 5, 1)
        initramfs.add_bytes("/busybox/busybox", Path(busybox).read_bytes(), 0o755)
        initramfs.add_bytes("/init", init.encode(), 0o755)
        initramfs.add_bytes(FIRST, bytecode.compiled(supervisor.__file__))
        order = []
        for path in _modules(kernel, network):
            name = f"/modules/{path.name.split('.')[0]}.ko"
            initramfs.add_bytes(name, read_module(path))
            order.append(name)
        initramfs.add_bytes("/modules/order", "".join(f"{name}\n" for name in order).encode())
        initramfs.close()


def write_files(target: Path, modules: bytes, files: Iterable[str]) -> None:
    """Writes the archive of Python's files to `target`: the one of its modules, and those besides."""
    files = list(files)
    with target.open("wb") as out:
        archive = Cpio(out, _loaded_part)
        archive.add_bytes(PYTHON_MODULES, modules)
        for name, data in bytecode.lacking(files):
            archive.add_bytes(name, data)
        for file in files:
            archive.add_tree(file)
        archive.close()


def _loaded_part(path: Path) -> bytes:
    """A file's content; of a library what is loaded, for the rest would only be memory of the guest."""
    data = path.read_bytes()
    try:
        with open_elf(path) as elf:
            return data[: loaded_size(elf)]
    except ValueError:
        return data


def search_path() -> list[str]:
    """Where Python looks for what is installed: the same for all projects and ways to start pytest.

    Editable projects come last, as in a Python that was not started in one of their folders.
    """
    found = [path for path in sys.path if _is_for_all(path)]
    editable = [path for folder in found for path in _named_by_pth(folder) if path in sys.path]
    return list(dict.fromkeys([*found, *editable, str(PACKAGE.resolve().parent)]))


def _is_for_all(path: str) -> bool:
    """Not a project's folder, nor that of the script that was started."""
    if path == site.USER_SITE or (path and os.sep not in path):  # else a word that an import hook knows
        return True
    roots = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    if os.path.basename(path) != "bin" and any(path.startswith(root + os.sep) for root in roots):
        return True
    # installed elsewhere, ``pip install --target``, and found by $PYTHONPATH
    return any(name.endswith(".dist-info") for name in _names_in(path))


def _named_by_pth(folder: str) -> list[str]:
    """What a folder's ``.pth`` files add, as `site` reads them: projects that are installed as editable."""
    lines: list[str] = []
    for name in sorted(name for name in _names_in(folder) if name.endswith(".pth")):
        with suppress(OSError, UnicodeDecodeError):
            lines += Path(folder, name).read_text(encoding="utf-8-sig").splitlines()
    return [os.path.abspath(os.path.join(folder, line.rstrip())) for line in lines if line.strip()]


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def before_all() -> str:
    """What Python runs first, on the host and in the guest."""
    path = f"import sys; sys.path[:] = {search_path()!r}"
    return f"{path}; from pytest_bpfmaps.vm.guest import code_archive, supervisor"


def python(environment: Mapping[str, str]) -> str:
    """The guest's first Python process, and the one that it starts, as a command."""
    program = f"{before_all()}; finder = code_archive.Finder({PYTHON_MODULES!r}); "
    program += "from pytest_bpfmaps.vm.guest import saved_worker; saved_worker.run(finder)"
    settings = [f"{name}={value}" for name, value in environment.items()]
    if site.USER_SITE in sys.path:  # HOME is another in the guest
        settings.append(f"PYTHONUSERBASE={site.USER_BASE}")
    first = [sys.executable, "-S", "-P", FIRST]
    return shlex.join(["env", "HOME=/root", *settings, *first, sys.executable, "-u", "-P", "-c", program])


def _modules(kernel: Kernel, network: bool) -> Iterator[Path]:
    """The files of the modules and of what they need, in the order to insert them, without built-in ones."""
    if kernel.modules is None:
        return
    folder = kernel.modules / "lib" / "modules" / kernel.release
    needs, built_in = _dependencies(folder), _names(folder / "modules.builtin")
    done: set[str] = set()
    bus = f"virtio_{architecture(kernel.arch).bus}"
    for wanted in (bus, *MODULES, *(("virtio_net",) if network else ())):
        if wanted in built_in:
            continue
        if wanted not in needs:
            raise VmError(
                "cannot prepare a guest for",
                on=f"kernel {kernel.name} ({kernel.release})",
                why=f"it has no module {wanted}",
                fix="leave out --bpf-vm-network, or use a generic kernel"
                if wanted == "virtio_net"
                else "use a generic kernel: cloud images leave out what guests share files with",
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


def read_module(path: Path) -> bytes:
    """A kernel module's ELF bytes. Raises VmError for one that is damaged."""
    try:
        return decompress_module(path.read_bytes(), path.suffix, MOST_OF_A_MODULE)
    except (ValueError, OSError) as error:
        why = str(error) if isinstance(error, ValueError) else error.strerror
        raise VmError("cannot read module", on=str(path), why=why, fix="fetch the kernel again") from error
