"""Guests that start warm: a machine is booted once, made ready, and saved; each run restores that state.

What a saved state holds is written down beside it (`manifest`): files of the kernel, of Python and of its
packages, QEMU. Where one of them has changed, the state is made again. A state appears under its name whole
or not at all: it is made in a folder of its own that is renamed at the end.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock

from pytest_bpfmaps import paths
from pytest_bpfmaps.errors import VmError, VmTimeoutError
from pytest_bpfmaps.vm import initramfs, rehearsal, virtme
from pytest_bpfmaps.vm.catalogue import Kernel
from pytest_bpfmaps.vm.monitor import Monitor
from pytest_bpfmaps.vm.qemu import Machine, Shape, find_qemu
from pytest_bpfmaps.vm.virtme import KERNEL_ARGUMENTS, TCG_ARGUMENTS, TCG_CPU, find_busybox
from pytest_bpfmaps.vm.zygote import TAG

FORMAT = 1
ZSTD = ("-1", "-q", "-f")
SAVE_SECONDS = 300.0  # from power on to ready, under emulation on a busy machine


def folder() -> Path:
    """Where states are kept."""
    return paths.cache_dir() / "warm"


@dataclass(frozen=True)
class State:
    """A saved state: its folder has ``initramfs``, ``state``, ``manifest.json``."""

    path: Path

    @property
    def memory(self) -> Path:
        """The machine's memory and devices, compressed where zstd is installed."""
        return self.path / "state"

    @property
    def initramfs(self) -> Path:
        """What it booted from."""
        return self.path / "initramfs"

    def is_current(self) -> bool:
        """Whether everything that it was made of is as it was."""
        try:
            facts = json.loads((self.path / "manifest.json").read_text())
        except (OSError, ValueError):
            return False
        return all(_stamp(path) == stamp for path, stamp in facts["files"].items())


def check(arch: str = "x86_64") -> None:
    """Raises VmError when this machine lacks a program that guests need."""
    find_qemu(arch)
    find_busybox()
    if find_spec("qemu.qmp") is None:
        raise VmError(
            "cannot start a guest",
            why="the package qemu.qmp is not installed",
            fix="pip install 'pytest-bpfmaps[vm]'",
        )


def start(kernel: Kernel, shape: Shape) -> Machine:
    """Restores a guest with `kernel`; makes and saves it first where that was not done. Raises VmError."""
    state = prepare(kernel, shape)
    source = f"exec:{_reader(state.memory)}"
    machine, monitor = _power_on(kernel, shape, state, ["-incoming", source])
    try:
        with monitor:
            monitor.wait_for_state()
            monitor.call("device_add", driver="virtio-9p-pci", fsdev="bpfmaps-host", mount_tag=TAG)
            monitor.call("cont")
        go = {"time": time.time(), "entropy": os.urandom(64).hex(), "modules": str(kernel.modules or "")}
        machine.control.sendall(json.dumps(go).encode() + b"\n")
    except BaseException:
        machine.close()
        raise
    return machine


def prepare(kernel: Kernel, shape: Shape) -> State:
    """The state for `kernel`, made now when there is none that is current. Raises VmError."""
    state = State(folder() / f"{kernel.name.replace('/', '_')}-{_key(kernel, shape)}")
    if state.is_current():
        return state
    folder().mkdir(parents=True, exist_ok=True)
    with FileLock(folder() / f".{state.path.name}.lock"):
        if not state.is_current():
            _make(kernel, shape, state)
    return state


def _make(kernel: Kernel, shape: Shape, state: State) -> None:
    files = rehearsed_files()
    scratch = State(Path(tempfile.mkdtemp(prefix=".making-", dir=folder())))
    try:
        initramfs.write(scratch.initramfs, kernel, find_busybox(), files, dict(_environment()))
        machine, monitor = _power_on(kernel, shape, scratch, [])
        with machine, monitor:
            _wait_until_ready(machine, kernel)
            monitor.save(f"exec:{_writer(scratch.memory)}")
        made_of = {*files, *(str(p) for p in _parts(kernel))}
        facts = {"files": {path: _stamp(path) for path in sorted(made_of)}, "release": kernel.release}
        (scratch.path / "manifest.json").write_text(json.dumps(facts))
        shutil.rmtree(state.path, ignore_errors=True)
        os.rename(scratch.path, state.path)
    finally:
        shutil.rmtree(scratch.path, ignore_errors=True)


def _wait_until_ready(machine: Machine, kernel: Kernel) -> None:
    machine.control.settimeout(SAVE_SECONDS)
    try:
        said = machine.control.recv(1 << 16)
    except TimeoutError:
        raise VmTimeoutError(
            "guest was not ready to be saved:",
            on=f"kernel {kernel.name} ({kernel.release})",
            why=f"it took more than {SAVE_SECONDS:g} s",
            details=machine.last_words(),
        ) from None
    if b"saved" not in said:
        raise VmError(
            "guest could not be prepared:",
            on=f"kernel {kernel.name} ({kernel.release})",
            why="it ended before it was ready",
            fix="look at the console below; --bpf-vm=virtme-ng starts guests another way",
            details=machine.last_words(),
        )
    machine.control.settimeout(None)


def _power_on(kernel: Kernel, shape: Shape, state: State, more: list[str]) -> tuple[Machine, Monitor]:
    ours, theirs = socket.socketpair()
    monitor = [
        "-chardev",
        f"socket,id=bpfmaps-qmp,fd={theirs.fileno()}",
        "-mon",
        "chardev=bpfmaps-qmp,mode=control",
    ]
    with theirs:
        machine = Machine([*_command(kernel, shape, state), *monitor, *more], [theirs.fileno()])
    try:
        return machine, Monitor(ours)
    except BaseException as e:
        words = machine.last_words()
        machine.close()
        raise VmError("cannot start a guest", why="QEMU did not answer", details=words) from e


def _command(kernel: Kernel, shape: Shape, state: State) -> list[str]:
    """QEMU's command line: the same for the machine that is saved and for those that are restored."""
    image = kernel.image if shape.kvm or kernel.vmlinux is None else kernel.vmlinux
    arguments = [*KERNEL_ARGUMENTS, *(() if shape.kvm else TCG_ARGUMENTS)]
    command = [find_qemu(kernel.arch), "-machine", "pc", "-accel", "kvm" if shape.kvm else "tcg"]
    command += ["-cpu", "host" if shape.kvm else TCG_CPU, "-smp", str(shape.cpus), "-m", shape.memory]
    command += ["-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"]
    command += ["-kernel", str(image), "-initrd", str(state.initramfs), "-append", " ".join(arguments)]
    command += ["-chardev", "stdio,id=bpfmaps-console,signal=off", "-serial", "chardev:bpfmaps-console"]
    files = "local,id=bpfmaps-host,path=/,security_model=none,readonly=on,multidevs=remap"
    return [*command, "-fsdev", files]


def rehearsed_files() -> list[str]:
    """The files that a worker is made of before its first test. Raises VmError when Python can't tell."""
    done = subprocess.run(
        [sys.executable, "-P", rehearsal.__file__],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise VmError(
            "cannot prepare a guest", why="a trial of pytest in a process failed", details=done.stderr
        )
    found: list[str] = json.loads(done.stdout)
    return found


def _key(kernel: Kernel, shape: Shape) -> str:
    """What tells states of one kernel apart."""
    facts: list[Any] = [
        FORMAT,
        str(kernel.image),
        asdict(shape),
        sys.executable,
        sys.path,
        sorted(_environment()),
    ]
    facts += [KERNEL_ARGUMENTS, TCG_ARGUMENTS, TCG_CPU]
    return sha256(json.dumps(facts).encode()).hexdigest()[:12]


def _parts(kernel: Kernel) -> Iterator[Path]:
    """Files besides Python's that a state depends on."""
    yield Path(find_qemu(kernel.arch))
    yield Path(find_busybox())
    yield from (p for p in (kernel.image, kernel.vmlinux) if p is not None)
    yield from Path(__file__).parent.glob("*.py")


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return ""
    if not os.path.isfile(path):
        return f"{status.st_mtime_ns}"
    return f"{status.st_size} {status.st_mtime_ns}"


def _environment() -> Iterator[tuple[str, str]]:
    for word in virtme._environment():
        name, _, value = word.partition("=")
        yield name, value


def _writer(path: Path) -> str:
    target = shlex.quote(str(path))
    return f"zstd {' '.join(ZSTD)} -o {target}" if shutil.which("zstd") else f"cat > {target}"


def _reader(path: Path) -> str:
    source = shlex.quote(str(path))
    with path.open("rb") as file:
        compressed = file.read(4) == b"\x28\xb5\x2f\xfd"
    return f"zstd -dcq {source}" if compressed else f"cat {source}"
