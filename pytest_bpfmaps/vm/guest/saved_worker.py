"""The worker of a guest from a saved state. It gets ready, waits, and goes on in each restored copy.

It runs in the initramfs, where every file of Python has the host's path. It does what a worker does before
its first test (`preload.py`), says so, and waits. The host saves the machine meanwhile. In a restored machine
the host lets it go on, and this process puts the host's files in place of the initramfs. Process 1
(`supervisor.py`) follows.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import mmap
import os
import random
import shutil
import struct
import time
import traceback
from pathlib import Path

from pytest_bpfmaps.elf.process_mappings import mappings_of
from pytest_bpfmaps.libbpf.library import lib
from pytest_bpfmaps.vm.guest import code_archive, init, library_pages, preload, supervisor, warm_up
from pytest_bpfmaps.vm.guest.cpus import start_all_cpus

HOST, LAYER, ROOT = "/run/host", "/run/layer", "/run/root"
KEPT = ("dev", "proc", "run", "sys", "tmp")
# Bytes of free memory that are filled with zeros at most, that are filled at once, and that stay free. The
# kernel gives no process the last five million of these, and may take eight more at once for itself.
CLEARED, STEP, KEPT_FREE = 1 << 30, 1 << 20, 14 << 20
TABLE = 2 << 20  # bytes whose page table entries are in one page
RESERVE, SMALL_RESERVE = Path("/proc/sys/vm/min_free_kbytes"), "1024"
PORTS = "/sys/class/virtio-ports"
MS_RDONLY, MS_MOVE, MS_REC = 1, 8192, 16384
PR_SET_THP_DISABLE = 41
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
USUAL = 180.0  # seconds that a test has in an emulated guest; the job may change it
OPTIONS = "trans=virtio,version=9p2000.L,msize=512000,cache=loose"


def run(finder: code_archive.Finder) -> None:
    """Runs `main`, then ends this process. Process 1 then ends the machine."""
    try:
        main(finder)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def main(finder: code_archive.Finder) -> None:
    """Runs the worker, from the boot to the end of each copy."""
    began = time.monotonic()
    parts = get_ready(finder)
    *ports, alarm = init.PORTS
    control, stream = map(init.open_port, ports)
    supervisor.tell(init.find_port(alarm))
    os.write(control, json.dumps({"saved": time.monotonic() - began}).encode() + b"\n")
    go = init.read_line(control)
    started = time.monotonic()
    init.libc.prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0)
    time.clock_settime(time.CLOCK_REALTIME, go["time"])
    add_entropy(bytes.fromhex(go["entropy"]))
    random.seed()
    plain = enter_host_files(go["modules"])
    library_pages.use_host_files(parts)
    supervisor.tell(f"/proc/{os.getpid()}/root")
    os.closerange(supervisor.SAY, supervisor.DONE + 1)
    os.set_inheritable(supervisor.STACKS_TO, False)
    hello = {"release": os.uname().release, "seconds": time.monotonic() - started}
    os.write(control, json.dumps({"hello": hello}).encode() + b"\n")
    job = init.read_line(control)
    if "warm_up" in job:
        if not init.has_line(control):
            warm_up.warm_up(job["warm_up"], control)
        job = init.read_line(control)
    init.apply(job, plain)
    if "BPFMAPS_LIBBPF" in os.environ:
        lib.forget()
    init.work(job, control, stream, supervisor.STACKS_TO)


def get_ready(finder: code_archive.Finder) -> library_pages.Parts:
    """Does everything that must be done before the machine is saved, and keeps its memory small."""
    gc.disable()
    init.mount_all(os.uname().release, "")
    init.quiet_console()
    check_kernel()
    init.loopback_up()
    init.network_up()
    # Without huge pages, only memory that was in use before is used. Else the kernel would copy it into huge
    # pages.
    init.libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    know_same_named()
    preload.preload(say)
    init.limit_hangs(USUAL)
    finder.close()
    parts = library_pages.give_up_parts()
    drop_files()
    gc.collect()
    give_memory_back()
    start_all_cpus()
    gc.freeze()  # the collector would touch, and so copy, every page of these objects
    gc.enable()
    return parts


def know_same_named() -> None:
    """Does a second's work for which the first program on a function would wait.

    It comes before everything else is imported, which then uses the 20 MB that it frees.
    """
    from pytest_bpfmaps.kernel.duplicate_symbols import same_named
    from pytest_bpfmaps.kernel.kallsyms import kernel_symbols

    with contextlib.suppress(OSError):  # a kernel without the symbols
        same_named()
    kernel_symbols.cache_clear()  # the text takes megabytes in the saved state, and few tests need it
    init.libc.malloc_trim(0)


def say(step: str) -> None:
    """Writes the current step to the console, where the host sees progress."""
    print("bpfmaps:", step, flush=True)


def check_kernel() -> None:
    """Raises OSError at once when this kernel lacks what is needed later."""
    with open("/proc/filesystems") as file:
        known = file.read().split()
    found = {"9p": "9p" in known, "overlay": "overlay" in known, "virtio-console": os.path.isdir(PORTS)}
    missing = [name for name, is_there in found.items() if not is_there]
    if missing:
        raise OSError(f"bpfmaps: this kernel {init.CANNOT_MOUNT} (it lacks {', '.join(missing)})")


def drop_files() -> None:
    """Deletes the initramfs's files, which take memory. Python has loaded what it needs."""
    mapped = {mapping.inode for mapping in mappings_of()}
    device = os.lstat("/").st_dev
    tops = [f"/{top}" for top in os.listdir("/") if top not in KEPT and os.lstat(f"/{top}").st_dev == device]
    for folder, _, names in (one for top in tops for one in os.walk(top)):
        for path in (os.path.join(folder, name) for name in names):
            if os.lstat(path).st_ino not in mapped:
                clear(path)
    for top in tops:
        shutil.rmtree(top, ignore_errors=True)


def clear(path: str) -> None:
    """Overwrites a file with zeros. Its freed pages keep them, and zeros take no room in a state."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        os.write(file, bytes(os.fstat(file).st_size))
        os.close(file)


def give_memory_back() -> None:
    """Frees caches, then fills free memory with zeros and frees it: zeros take no room in a state."""
    init.libc.malloc_trim(0)
    Path("/proc/sys/vm/drop_caches").write_text("3")
    usual, cpus = RESERVE.read_text(), os.sched_getaffinity(0)
    RESERVE.write_text(SMALL_RESERVE)  # of the usual 45 MB the kernel would give nothing
    if len(cpus) > 1:  # a CPU keeps up to 20 MB of free pages for itself: this process must not move away
        os.sched_setaffinity(0, {min(cpus)})
    fill_with_zeros(min(free_memory(), CLEARED))
    if len(cpus) > 1:
        os.sched_setaffinity(0, cpus)
    RESERVE.write_text(usual)


def fill_with_zeros(most: int) -> None:
    """Fills `most` bytes of free memory, or all but what must stay free."""
    with mmap.mmap(-1, most, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for at in range(0, most, TABLE):
            memory[at] = 0  # page tables first: for one of them the kernel may take much more than a page
        zeros = bytes(STEP)
        for at in range(0, most - STEP, STEP):
            if free_memory() < KEPT_FREE:
                break
            memory[at : at + STEP] = zeros


def free_memory() -> int:
    """Returns how many bytes are free."""
    return os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE


def add_entropy(seed: bytes) -> None:
    """Gives this copy random numbers of its own: random(4), RNDADDENTROPY, RNDRESEEDCRNG (Linux 4.17)."""
    with open("/dev/urandom", "wb") as device:
        fcntl.ioctl(device, RNDADDENTROPY, struct.pack("=ii", len(seed) * 8, len(seed)) + seed)
        fcntl.ioctl(device, RNDRESEEDCRNG)


def enter_host_files(modules: str) -> int:
    """Makes the host's files the root: a read-only view, with a writable layer in memory over it.

    Returns a descriptor of the view alone.
    """
    for folder in (HOST, f"{LAYER}/upper", f"{LAYER}/work", ROOT):
        os.makedirs(folder, exist_ok=True)
    must_mount(init.TAG, HOST, "9p", MS_RDONLY, OPTIONS)
    layers = f"xino=off,lowerdir={HOST},upperdir={LAYER}/upper,workdir={LAYER}/work"
    must_mount("root", ROOT, "overlay", 0, layers)
    for folder in ("/dev", "/proc", "/sys"):  # with everything that is mounted there
        must_mount(folder, ROOT + folder, "", init.MS_BIND | MS_REC, "")
    must_mount("tmpfs", f"{ROOT}/run", "tmpfs", 0, "mode=0755")
    plain = os.open(HOST, os.O_RDONLY | os.O_DIRECTORY)
    switch_root(ROOT)
    init.mount_modules(os.uname().release, modules)
    importlib.invalidate_caches()  # folders have more files now, and their old times of change
    return plain


def switch_root(folder: str) -> None:
    """Makes a mounted folder the root of the mount namespace and of this process, as switch_root(8) does.

    In a chroot alone, the kernel would refuse user namespaces. Raises OSError.
    """
    os.chdir(folder)
    must_mount(".", "/", "", MS_MOVE, "")
    os.chroot(".")


def must_mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    """Calls mount(2). Raises OSError."""
    if init.libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()) != 0:
        why = os.strerror(ctypes.get_errno())
        raise OSError(f"bpfmaps: this kernel {init.CANNOT_MOUNT} ({kind}): {why}")
