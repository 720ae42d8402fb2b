"""Starts guests warm: a machine is booted once, made ready, and saved; each run restores that state.

The memory of a restored machine is a private view of the saved file. So nothing is read before it is used,
and guests share what they do not change. The manifest of a state (`saved_states`) names what it was made of:
files of the kernel, of Python and its packages, and QEMU. Where one of them has changed, the state is made
again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_bpfmaps.cache.locks import only_one
from pytest_bpfmaps.cache.sparse_files import copy, in_memory
from pytest_bpfmaps.cache.staging import staging
from pytest_bpfmaps.cache.stored_files import own
from pytest_bpfmaps.errors import VmBootError, VmError, remedy_in_cache
from pytest_bpfmaps.vm.boot import initramfs, saved_states
from pytest_bpfmaps.vm.boot.boot_progress import boot_error, if_stopped, wait_for_word
from pytest_bpfmaps.vm.boot.initramfs import find_busybox
from pytest_bpfmaps.vm.boot.kernel_arguments import TCG, kernel_arguments
from pytest_bpfmaps.vm.boot.saved_states import SavedState
from pytest_bpfmaps.vm.boot.state_key import environment, parts, state_key
from pytest_bpfmaps.vm.guest.init import TAG
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
from pytest_bpfmaps.vm.machine.qemu_features import QemuFeatures, features
from pytest_bpfmaps.vm.protocol.rpc import Lines

MOST_PATIENCES = 15.0  # limit from power on to ready, even with progress: usually five minutes
PRELOAD_SECONDS = 300.0  # it usually takes three or four
MAKING_SECONDS = 900.0  # how long another process may take to make the same state
FAILED_SECONDS = 3600.0  # how long to wait before making a state is tried again after it failed


@dataclass(frozen=True)
class Preloaded:
    """Files that a guest needs, the code of Python's `modules`, and the `sources` that they came from."""

    files: list[str]
    sources: list[str]
    modules: bytes


def check(arch: str) -> None:
    """Raises VmError when a program that guests need is missing, VmBootError when states can't be saved."""
    qemu = features(find_qemu(arch))
    find_busybox()
    why = qemu.can_save()
    if not why and not _has_glibc():
        why = "this Python was built for another C library than glibc"
    if why:
        fix = "leave out --bpf-vm=warm, or use --bpf-vm=virtme-ng"
        raise VmBootError("cannot save the state of a guest", why=why, fix=fix)


def _has_glibc() -> bool:
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (ValueError, OSError):  # musl does not know this name
        return False


def start(
    kernel: Kernel,
    shape: MachineConfig,
    more: Addition = NOTHING_MORE,
    *,
    preparing: Callable[[], None] = lambda: None,
) -> Machine:
    """Restores a guest with `kernel`, and `more`; first makes and saves its state if there is none.

    It calls `preparing` before it makes a state.
    Raises VmBootError when the state can't be made or restored. Raises VmError for what another way would
    lack, too.
    """
    check(kernel.arch)
    opened = None
    while opened is None:  # None: another process found the state old and has just deleted it
        opened = prepare(kernel, shape, preparing).open()
    memory, devices = opened
    try:
        arguments = [*_ram(shape, memory, "off"), "-incoming", "defer", *more.arguments]
        machine = _power_on(kernel, shape, arguments, [memory, *more.descriptors])
    finally:
        os.close(memory)
    try:
        machine.monitor().restore(devices, from_file=_features(kernel).migrates_to_file)
        go = {"time": time.time(), "entropy": os.urandom(64).hex(), "modules": str(kernel.modules or "")}
        machine.control.sendall(json.dumps(go).encode() + b"\n")
    except (VmError, OSError) as error:
        failure = if_stopped(
            machine, boot_error(machine, kernel, f"its saved state can't be restored: {error}")
        )
        machine.close()
        raise failure from error
    except BaseException:
        machine.close()
        raise
    finally:
        os.close(devices)
    return machine


def note_failure(kernel: Kernel, shape: MachineConfig, why: str) -> bool:
    """Deletes a state that does not start. If it was new, another is not made for an hour.

    Returns whether the state was damaged, so that it is worthwhile to make another.
    """
    state = state_for(kernel, shape)
    if state.path.exists():
        old, damaged = state.age > FAILED_SECONDS, not state.is_intact()
        with suppress(OSError):
            saved_states.remove(state)
        if old or damaged:
            return damaged
    if (
        saved_states.last_failure(state, FAILED_SECONDS) is None
    ):  # else the hour would begin again with each run
        saved_states.note_failure(state, why)
    return False


def drop_if_damaged(kernel: Kernel, shape: MachineConfig) -> bool:
    """Deletes a state whose bytes are not those that were written. Returns whether it was so."""
    state = state_for(kernel, shape)
    if not state.path.exists() or state.is_intact():
        return False
    with suppress(OSError):
        saved_states.remove(state)
    return True


def has_current_state(kernel: Kernel, shape: MachineConfig) -> bool:
    """Returns whether there is a state whose files have not changed since it was made."""
    return state_for(kernel, shape).is_current()


def forget_failure(kernel: Kernel, shape: MachineConfig) -> None:
    """Has the next start try to make a state, even if that failed within the last hour."""
    saved_states.forget_failure(state_for(kernel, shape))


def check_not_failed(kernel: Kernel, shape: MachineConfig) -> None:
    """Raises VmBootError when making the state failed within the last hour, in any run."""
    state = state_for(kernel, shape)
    failure = None if state.is_current() else saved_states.last_failure(state, FAILED_SECONDS)
    if failure is not None:
        ago, why = failure
        raise VmBootError(
            "cannot save the state of a guest",
            on=f"with {kernel.name}",
            why=f"{why}; that was {ago / 60:.0f} min ago",
            fix=f"`bpfmaps vm prepare {kernel.name}` tries it again",
        )


def prepare(kernel: Kernel, shape: MachineConfig, preparing: Callable[[], None] = lambda: None) -> SavedState:
    """Returns the state for `kernel`, and makes it when there is no current one. Raises as `start` does."""
    state = state_for(kernel, shape)
    if state.is_current():
        return state
    preparing()
    own(saved_states.folder())
    lock = saved_states.folder() / f".{state.path.name}.lock"
    with only_one(lock, f"make the saved state of {kernel.name}", MAKING_SECONDS):
        if not state.is_current():
            saved_states.remove_outdated()
            try:
                _make(kernel, shape, state)
            except OSError as e:
                raise VmBootError(
                    "cannot save the state of a guest",
                    on=str(saved_states.folder()),
                    why=str(e),
                    fix=remedy_in_cache(
                        e.errno, "BPFMAPS_CACHE names another folder; --bpf-vm=virtme-ng needs no state"
                    ),
                ) from e
    return state


def state_for(kernel: Kernel, shape: MachineConfig) -> SavedState:
    """Returns where the state for `kernel` is or will be."""
    return SavedState(saved_states.folder() / f"{kernel.name.replace('/', '_')}-{state_key(kernel, shape)}")


def _make(kernel: Kernel, shape: MachineConfig, state: SavedState) -> None:
    with staging(saved_states.folder()) as scratch, in_memory() as memory, in_memory() as devices:
        archive, start, made = scratch / "files", scratch / "initramfs", SavedState(scratch / "state")
        made.path.mkdir(mode=0o700)
        began, began_at = time.monotonic(), time.time()
        check_content(kernel, "vmlinux", "boot/")
        python = preloaded()
        initramfs.write_files(archive, python.modules, python.files)
        command = initramfs.python(environment())
        initramfs.write(start, kernel, find_busybox(), archive, command, network=shape.network)
        preloaded_at = time.monotonic()
        boot = [*_boot(kernel, shape, start), *_ram(shape, memory, "on")]
        with ThreadPoolExecutor(1) as pool, _power_on(kernel, shape, boot, [memory]) as machine:
            # Reads some 400 MB while the guest boots.
            modules = pool.submit(check_content, kernel, "lib/modules")
            imports = _wait_until_ready(machine, kernel)
            modules.result()
            ready_at = time.monotonic()
            _save(machine, kernel, devices)
        copy(devices, made.devices)
        copy(memory, made.memory)
        seconds = {"rehearse": preloaded_at - began, "boot": ready_at - preloaded_at - imports}
        seconds |= {"imports": imports, "save": time.monotonic() - ready_at}
        files = [*python.files, *python.sources, *map(str, parts(kernel))]
        made.write_manifest(kernel.name, kernel.release, files, seconds, began=began_at)
        made.close_to_others()
        if state.path.exists():
            saved_states.remove(state)
        made.path.rename(state.path)  # its files are on the disk already
        saved_states.forget_failure(state)


def _save(machine: Machine, kernel: Kernel, devices: int) -> None:
    try:
        machine.monitor().save(devices, to_file=_features(kernel).migrates_to_file)
    except VmError as error:
        failure = boot_error(machine, kernel, f"its state can't be saved: {error}")
        raise if_stopped(machine, failure) from error


def _wait_until_ready(machine: Machine, kernel: Kernel) -> float:
    """Returns the seconds that Python took to get ready in the guest."""
    fix = "`pytest --bpf-vm=virtme-ng --bpf-vm-timeout=SECONDS` boots without a state"
    limit = MOST_PATIENCES * machine.patience
    control = Lines(machine.control.fileno())
    return float(wait_for_word(machine, kernel, control, "saved", limit, fix=fix))


def _power_on(kernel: Kernel, shape: MachineConfig, more: list[str], descriptors: Iterable[int]) -> Machine:
    qemu = _features(kernel)
    machine = Machine(
        [*_command(kernel, shape), *more],
        kernel.arch,
        [*descriptors],
        version=qemu.version,
        patience=qemu.patience,
    )
    try:
        machine.monitor()
        return machine
    except VmError as error:
        failure = if_stopped(machine, boot_error(machine, kernel, str(error)))
        machine.close()
        raise failure from error
    except BaseException:
        machine.close()
        raise


def _command(kernel: Kernel, shape: MachineConfig) -> list[str]:
    """Returns the part of QEMU's command line that the saved machine and the restored ones have in common."""
    arch = architecture(kernel.arch)
    command = [find_qemu(arch.name), "-machine", f"{arch.machine},memory-backend=bpfmaps-memory"]
    command += ["-accel", "kvm" if shape.kvm else TCG]
    command += ["-cpu", "host" if shape.kvm else _features(kernel).emulated_cpu(arch)]
    command += ["-smp", str(shape.cpus), "-m", shape.memory]
    command += ["-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"]
    command += ["-chardev", "stdio,id=bpfmaps-console,signal=off", "-serial", "chardev:bpfmaps-console"]
    files = "local,id=bpfmaps-host,path=/,security_model=none,readonly=on,multidevs=remap"
    device = arch.device("virtio-9p", "fsdev=bpfmaps-host", f"mount_tag={TAG}")
    command += _features(kernel).monitor_arguments(MONITOR_CHANNEL)
    return [*command, "-fsdev", files, *device, *network_arguments(arch, shape)]


def _features(kernel: Kernel) -> QemuFeatures:
    return features(find_qemu(kernel.arch))


def _ram(shape: MachineConfig, fd: int, share: str) -> list[str]:
    file = f"mem-path=/proc/self/fd/{fd},share={share}"
    return ["-object", f"memory-backend-file,id=bpfmaps-memory,size={shape.memory},{file}"]


def _boot(kernel: Kernel, shape: MachineConfig, archive: Path) -> list[str]:
    image = kernel.image if shape.kvm or kernel.vmlinux is None else kernel.vmlinux
    arguments = " ".join(kernel_arguments(kernel, shape))
    return ["-kernel", str(image), "-initrd", str(archive), "-append", arguments]


def preloaded() -> Preloaded:
    """Returns what a worker is made of before its first test. Raises VmError when Python can't tell."""
    # When the time is over, Python prints where it is, and ends.
    limit = f"import faulthandler; faulthandler.dump_traceback_later({PRELOAD_SECONDS}, exit=True)"
    program = f"{initramfs.before_all()}; {limit}; early = [*sys.modules]; "
    program += "recorder = code_archive.Recorder(); "
    program += "from pytest_bpfmaps.vm.guest import preload; preload.report(early, recorder)"
    # A state is for all runs. What this run asks of pytest, by PYTEST_ADDOPTS, might exclude a plugin.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(os.path.isabs, initramfs.search_path()))
    parent = os.getpid()
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment,
        preexec_fn=lambda: die_with(parent),
    )
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace")
        raise VmError("cannot prepare a guest", why="a trial of pytest in a process failed", details=words)
    facts, _, modules = done.stdout.partition(b"\n")
    return Preloaded(**json.loads(facts), modules=modules)
