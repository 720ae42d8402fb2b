"""Starts guests by virtme-ng: `virtme-run` chooses the machine, and packs the initramfs.

`virtme-run` is a command. It is asked once what it would run (``--dry-run --show-command``). The answer is
kept in the cache, together with the initramfs. Then this process runs that command itself, so that QEMU is
its child and ends with it. virtme-ng's own init starts udev and writes a user's session, which takes most of
the time of a boot. So `init.sh` replaces it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from pytest_bpfmaps.cache.locks import only_one
from pytest_bpfmaps.cache.stored_files import digest, discard, own, place, read, read_json, write_json
from pytest_bpfmaps.errors import VmBootError, VmError
from pytest_bpfmaps.paths import PACKAGE, cache_dir, find_program
from pytest_bpfmaps.vm.boot import bytecode
from pytest_bpfmaps.vm.boot.initramfs import find_busybox
from pytest_bpfmaps.vm.boot.kernel_arguments import TCG, environment_of_python, kernel_arguments
from pytest_bpfmaps.vm.kernels.catalogue import check_content
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.architecture import architecture
from pytest_bpfmaps.vm.machine.child_process import die_with
from pytest_bpfmaps.vm.machine.qemu import (
    MONITOR_CHANNEL,
    NOTHING_MORE,
    Addition,
    Machine,
    MachineConfig,
    find_qemu,
    network_arguments,
)
from pytest_bpfmaps.vm.machine.qemu_features import features

ASK_SECONDS = 120.0  # virtme-run packs an initramfs, in two seconds on a quiet machine
KERNEL_ENVIRONMENT_LIMIT = 24  # the kernel panics at more than 32, and it sets some itself


def start(kernel: Kernel, shape: MachineConfig, more: Addition = NOTHING_MORE) -> Machine:
    """Starts a guest with `kernel`, and `more`. Raises VmError when virtme-ng or QEMU can't be run."""
    qemu = features(find_qemu(kernel.arch))
    check_content(kernel, "boot/", "vmlinux")
    command = _finish(_recipe(kernel, shape), kernel, shape)
    command += more.arguments
    return Machine(command, kernel.arch, more.descriptors, version=qemu.version, patience=qemu.patience)


def check(arch: str) -> None:
    """Raises VmError when this machine lacks a program that guests need."""
    find_qemu(arch)
    find_virtme()
    find_busybox()


def find_virtme() -> str:
    """Returns the path of `virtme-run`: beside this Python, else on the PATH. Raises VmError for none."""
    path = find_program("virtme-run")
    if path is None:
        raise VmError(
            "cannot start a guest",
            why="virtme-ng is not installed (no virtme-run command)",
            fix="pip install 'pytest-bpfmaps[vm]'",
        )
    return path


def _recipe(kernel: Kernel, shape: MachineConfig) -> list[str]:
    """Returns the QEMU command that virtme-ng would run. Its initramfs is in the cache."""
    virtme, qemu = find_virtme(), find_qemu(kernel.arch)
    arguments = [virtme, "--qemu-bin", qemu, "--kimg", str(kernel.image), "--mods", "auto", "--force-9p"]
    arguments += [
        "--force-initramfs",
        "--overlay-rwdir",
        "/",
        "--disable-monitor",
        "--busybox",
        find_busybox(),
    ]
    arguments += ["--cpus", str(shape.cpus), "--memory", shape.memory]
    arguments += [] if shape.kvm else ["--disable-kvm"]
    key = sha256("\0".join([*arguments, *_stamps(kernel, virtme, qemu)]).encode()).hexdigest()[:16]
    folder = own(cache_dir() / "virtme")
    name = f"{kernel.name.replace('/', '_')}-{key}"
    recipe, initramfs = folder / f"{name}.json", folder / f"{name}.cpio"
    with only_one(folder / ".lock", "ask virtme-run how it would start QEMU", 2 * ASK_SECONDS):
        facts = read_json(recipe)
        if not _is_intact(initramfs, facts.get("initramfs")):
            packed = folder / f".{name}.cpio"
            command = _ask(arguments, packed, kernel)
            command = [str(initramfs) if word == str(packed) else word for word in command]
            facts = {"command": command, "initramfs": digest(packed.read_bytes())}
            place(packed, initramfs)
            write_json(recipe, facts)
    found: list[str] = facts["command"]
    return found


def _is_intact(initramfs: Path, known: str | None) -> bool:
    """Returns whether the file is there and has the digest `known`."""
    if known is None or not initramfs.exists():
        return False
    intact = digest(read(initramfs)) == known
    if not intact:
        discard(initramfs)
    return intact


def _stamps(kernel: Kernel, virtme: str, qemu: str) -> Iterator[str]:
    for path in (kernel.image, Path(qemu), Path(virtme), Path(find_busybox())):
        if not path.exists():
            continue  # virtme-run will report it
        status = path.stat()
        yield f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def _ask(arguments: list[str], initramfs: Path, kernel: Kernel) -> list[str]:
    initramfs.unlink(missing_ok=True)
    parent = os.getpid()
    try:
        result = subprocess.run(
            [*arguments, "--dry-run", "--show-command", "--save-initramfs", str(initramfs)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=ASK_SECONDS,
            preexec_fn=lambda: die_with(parent),
        )
    except subprocess.TimeoutExpired:
        why = f"it took more than {ASK_SECONDS:g} s to say how it would start QEMU"
        raise VmBootError("virtme-run refused kernel", on=kernel.name, why=why) from None
    lines = [line for line in result.stdout.splitlines() if " -append " in line]
    if result.returncode != 0 or not lines or not initramfs.exists():
        raise VmBootError(
            "virtme-run refused kernel",
            on=f"{kernel.name} ({kernel.image})",
            why=f"exit status {result.returncode}",
            details=(result.stdout + result.stderr).strip(),
            fix="see its message above; `bpfmaps doctor` lists what guests need",
        )
    return shlex.split(lines[-1])


def _finish(recipe: list[str], kernel: Kernel, shape: MachineConfig) -> list[str]:
    """Returns `recipe` with our command line, the uncompressed kernel, and the host's files once more."""
    command, arch = list(recipe), architecture(kernel.arch)
    command[command.index("-append") + 1] = _kernel_command_line(kernel, shape)
    if kernel.vmlinux is not None and not shape.kvm:
        command[command.index("-kernel") + 1] = str(kernel.vmlinux)
    qemu = features(command[0])
    if not shape.kvm:
        command[command.index("-cpu") + 1] = qemu.emulated_cpu(arch)
        command += ["-accel", TCG]
    files = "local,id=bpfmaps-host,path=/,security_model=none,readonly=on,multidevs=remap"
    command += ["-fsdev", files, *arch.device("virtio-9p", "fsdev=bpfmaps-host", "mount_tag=bpfmaps.host")]
    command += [*network_arguments(arch, shape), *qemu.monitor_arguments(MONITOR_CHANNEL)]
    return [*command, "-no-reboot"]


def _kernel_command_line(kernel: Kernel, shape: MachineConfig) -> str:
    busybox = find_busybox()
    init = [
        PACKAGE / "vm/guest/init.sh",
        busybox,
        bytecode.archive(),
        sys.executable,
        PACKAGE / "vm/guest/init.py",
        kernel.modules or "",
    ]
    arguments = [*kernel_arguments(kernel, shape), *_environment()]
    words = [*arguments, f"init={busybox}", "--", "sh", *init]
    return " ".join(_quote(str(word)) for word in words)


def _environment() -> list[str]:
    """Returns the part of them that fits on the kernel's command line."""
    fit = [
        f"{name}={value}"
        for name, value in environment_of_python().items()
        if value.isascii() and '"' not in value and len(value) < 200
    ]
    return fit[:KERNEL_ENVIRONMENT_LIMIT]


def _quote(word: str) -> str:
    return f'"{word}"' if " " in word or not word else word
