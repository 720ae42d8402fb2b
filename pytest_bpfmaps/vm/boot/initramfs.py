"""Makes the files that a guest boots from before its state is saved: busybox, modules to mount files, Python.

Every file of Python has the host's path. So what is imported before the state is saved looks as if it had
come from the host. These files are in an archive of their own, which is read over 9p. In an initramfs they
would cost memory: the kernel leaves the packed initramfs in the memory that is saved.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
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

MODULES = ("virtio_console", "9pnet_virtio", "9p", "overlay")  # and the module of the bus
MOST_OF_A_MODULE = 256 << 20  # bytes, unpacked; the largest has 100 MB, with debug information
MOUNT = "ro,trans=virtio,version=9p2000.L,msize=512000"
# Linux 5.x is faster with `dd bs=512k` and no page cache: with a page cache it reads a page at a time. Later
# releases are faster with `cat` and cache=loose.
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


def find_busybox() -> str:
    """Returns the path of the busybox that virtme-ng needs. Raises VmError when there is none."""
    path = shutil.which("busybox-static") or shutil.which("busybox")
    if path is None:
        raise VmError(
            "cannot start a guest",
            why="there is no busybox, which virtme-ng boots with",
            fix="install a static one (Debian, Ubuntu: apt install busybox-static)",
        )
    return os.path.realpath(path)


def write(
    target: Path, kernel: Kernel, busybox: str, archive: Path, python: str, *, network: bool = False
) -> None:
    """Writes the initramfs to `target`, for a guest that unpacks `archive` and runs the command `python`.

    With `network` it has the module for a network card. Raises VmError when the kernel's modules can't be
    found.
    """
    # The guest would look for a link's target in its own root.
    host = shlex.quote(f"/host{archive.resolve()}")
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
    """Writes the archive of Python's files to `target`: the archive of its modules, and other files."""
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
    """Returns a file's content, or of a library the part that is loaded: the rest would only take memory."""
    data = path.read_bytes()
    try:
        with open_elf(path) as elf:
            return data[: loaded_size(elf)]
    except ValueError:
        return data


def search_path() -> list[str]:
    """Returns where Python looks for installed packages. It is the same for all ways to start pytest.

    Editable projects come last, as in a Python that was not started in one of their folders.
    """
    found = [path for path in sys.path if _is_for_all(path)]
    editable = [path for folder in found for path in _named_by_pth(folder) if path in sys.path]
    return list(dict.fromkeys([*found, *editable, str(PACKAGE.resolve().parent)]))


def _is_for_all(path: str) -> bool:
    """Returns whether a folder of sys.path is no project's folder, and not that of the script that was
    started.
    """
    if path == site.USER_SITE or (path and os.sep not in path):  # a path without / is for an import hook
        return True
    roots = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    if os.path.basename(path) != "bin" and any(path.startswith(root + os.sep) for root in roots):
        return True
    # It is installed elsewhere, by ``pip install --target``, and $PYTHONPATH names it.
    return any(name.endswith(".dist-info") for name in _names_in(path))


def _named_by_pth(folder: str) -> list[str]:
    """Returns what a folder's ``.pth`` files add, as `site` reads them: projects installed as editable."""
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
    """Returns the statements that Python runs first, on the host and in the guest."""
    path = f"import sys; sys.path[:] = {search_path()!r}"
    return f"{path}; from pytest_bpfmaps.vm.guest import code_archive, supervisor"


def python(environment: Mapping[str, str]) -> str:
    """Returns the command of the guest's first Python process, which starts the second one."""
    program = f"{before_all()}; finder = code_archive.Finder({PYTHON_MODULES!r}); "
    program += "from pytest_bpfmaps.vm.guest import saved_worker; saved_worker.run(finder)"
    settings = [f"{name}={value}" for name, value in environment.items()]
    if site.USER_SITE in sys.path:  # the guest has another HOME
        settings.append(f"PYTHONUSERBASE={site.USER_BASE}")
    first = [sys.executable, "-S", "-P", FIRST]
    return shlex.join(["env", "HOME=/root", *settings, *first, sys.executable, "-u", "-P", "-c", program])


def _modules(kernel: Kernel, network: bool) -> Iterator[Path]:
    """Gives the files of the modules that a guest needs, in the order in which they are inserted."""
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
    """Returns ``modules.dep``: for each module its file, then the files that it needs."""
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
    """Returns a kernel module's ELF bytes. Raises VmError for a damaged one."""
    try:
        return decompress_module(path.read_bytes(), path.suffix, MOST_OF_A_MODULE)
    except (ValueError, OSError) as error:
        why = str(error) if isinstance(error, ValueError) else error.strerror
        raise VmError("cannot read module", on=str(path), why=why, fix="fetch the kernel again") from error
