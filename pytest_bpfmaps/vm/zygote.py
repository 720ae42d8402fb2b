"""The first process of a guest whose state is saved: gets ready, stops, goes on in each restored copy.

It runs in the initramfs, where every file of Python's has the host's path. What a worker does before its
first test is done (`rehearsal`); then it says so and waits. The host saves the machine while it waits. In a
restored machine the host says go, and this process puts the host's files in the initramfs's place.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import glob
import importlib
import json
import mmap
import os
import random
import shutil
import struct
import sys
import sysconfig
import time
import traceback
from typing import Any

from pytest_bpfmaps.vm import guest, initramfs, modules, qemu, rehearsal

HOST, LAYER, ROOT = "/run/host", "/run/layer", "/run/root"
KEPT = ("dev", "proc", "run", "sys", "tmp")
EXTENSION = sysconfig.get_config_var("EXT_SUFFIX")
CLEARED = 64 << 20
MAP_FIXED = 0x10
PORTS = "/sys/class/virtio-ports"
MS_RDONLY, MS_REC = 1, 16384
PR_SET_THP_DISABLE = 41
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
OPTIONS = "trans=virtio,version=9p2000.L,msize=512000,cache=loose"

libc_mmap = guest.libc.mmap
libc_mmap.restype = ctypes.c_void_p
libc_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


def main(finder: modules.Finder) -> None:
    """Process 1, from the boot to the end of each copy."""
    began = time.monotonic()
    gc.disable()
    guest.mount_all(os.uname().release, "")
    check_kernel()
    guest.loopback_up()
    guest.network_up()
    # Without huge pages, memory is used that was in use before.
    guest.libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    rehearsal.rehearse()
    start_all_cpus()
    finder.close()
    drop_files()
    gc.collect()
    give_memory_back()
    guest.libc.prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0)
    gc.freeze()  # a collection would touch, and so copy, every page of what is here
    gc.enable()
    control, stream, alarm = map(guest.open_port, guest.PORTS)
    os.write(control, json.dumps({"saved": time.monotonic() - began}).encode() + b"\n")
    go = guest.read_line(control)
    started = time.monotonic()
    time.clock_settime(time.CLOCK_REALTIME, go["time"])
    add_entropy(bytes.fromhex(go["entropy"]))
    random.seed()
    enter_host_files(go["modules"])
    hello = {"release": os.uname().release, "seconds": time.monotonic() - started}
    os.write(control, json.dumps({"hello": hello}).encode() + b"\n")
    guest.work(control, stream, alarm)


def check_kernel() -> None:
    """Raises OSError when this kernel lacks what later is needed, before anything takes time."""
    with open("/proc/filesystems") as file:
        known = file.read().split()
    found = {"9p": "9p" in known, "overlay": "overlay" in known, "virtio-console": os.path.isdir(PORTS)}
    missing = [name for name, is_there in found.items() if not is_there]
    if missing:
        raise OSError(f"bpfmaps: this kernel {qemu.CANNOT_MOUNT} (it lacks {', '.join(missing)})")


def start_all_cpus() -> None:
    """Starts those that an emulated guest does not boot with: one by itself boots quicker."""
    for switch in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/online"):
        with open(switch, "r+") as file:
            if file.read().strip() == "0":
                file.write("1")


def drop_files() -> None:
    """Deletes the initramfs's files, which are memory: Python has what it needs; the host's will follow."""
    with open("/proc/self/maps") as maps:
        mapped = {int(line.split()[4]) for line in maps}
    device = os.lstat("/").st_dev
    tops = [f"/{top}" for top in os.listdir("/") if top not in KEPT and os.lstat(f"/{top}").st_dev == device]
    for folder, _, names in (one for top in tops for one in os.walk(top)):
        for path in (os.path.join(folder, name) for name in names):
            if os.lstat(path).st_ino not in mapped:
                clear(path)
    for top in tops:
        shutil.rmtree(top, ignore_errors=True)


def clear(path: str) -> None:
    """Overwrites a file with zeros: pages that are freed keep them, and they take no room in a state."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        os.write(file, bytes(os.fstat(file).st_size))
        os.close(file)


def give_memory_back() -> None:
    """Frees what is kept for later, then takes free memory and frees it: zeros take no room in a state."""
    guest.libc.malloc_trim(0)
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")
    once = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, CLEARED, flags=once).close()


def add_entropy(seed: bytes) -> None:
    """Makes this copy's random numbers its own: random(4), RNDADDENTROPY, RNDRESEEDCRNG (4.17)."""
    with open("/dev/urandom", "wb") as device:
        fcntl.ioctl(device, RNDADDENTROPY, struct.pack("=ii", len(seed) * 8, len(seed)) + seed)
        fcntl.ioctl(device, RNDRESEEDCRNG)


def enter_host_files(modules: str) -> None:
    """A read-only view of the host's files with a writable layer in memory over it, as root."""
    for folder in (HOST, f"{LAYER}/upper", f"{LAYER}/work", ROOT):
        os.makedirs(folder, exist_ok=True)
    must_mount(initramfs.TAG, HOST, "9p", MS_RDONLY, OPTIONS)
    layers = f"xino=off,lowerdir={HOST},upperdir={LAYER}/upper,workdir={LAYER}/work"
    must_mount("root", ROOT, "overlay", 0, layers)
    for folder in ("/dev", "/proc", "/sys"):  # with all that is mounted there
        must_mount(folder, ROOT + folder, "", guest.MS_BIND | MS_REC, "")
    must_mount("tmpfs", f"{ROOT}/run", "tmpfs", 0, "mode=0755")
    plain = os.open(HOST, os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(plain, guest.HOST_FILES)
    os.close(plain)
    os.chroot(ROOT)
    os.chdir("/")
    guest.mount_modules(os.uname().release, modules)
    importlib.invalidate_caches()  # folders have more files now, and the times of change that they had
    run_host_libraries()


def run_host_libraries() -> None:
    """Maps the code that this process runs from the host's files, which are the same: uprobes go into those.

    Python's own extension modules stay as they are: each costs milliseconds, and nobody traces them.
    """
    with open("/proc/self/maps") as maps:
        mapped = [line.split(maxsplit=5) for line in maps]
    for area, rights, offset, *_, name in (fields for fields in mapped if len(fields) > 5):
        path = name.strip().removesuffix(" (deleted)")
        if rights == "r-xp" and path.startswith("/") and not path.endswith(EXTENSION):
            start, end = (int(address, 16) for address in area.split("-"))
            fd = os.open(path, os.O_RDONLY)
            rights_now, how = mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE | MAP_FIXED
            if libc_mmap(start, end - start, rights_now, how, fd, int(offset, 16)) != start:
                raise OSError(ctypes.get_errno(), "cannot map code", path)
            os.close(fd)


def must_mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    """mount(2). Raises OSError."""
    if guest.libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()) != 0:
        why = os.strerror(ctypes.get_errno())
        raise OSError(f"bpfmaps: this kernel {qemu.CANNOT_MOUNT} ({kind}): {why}")


def run(finder: modules.Finder) -> Any:
    """`main`, and the end of the machine whatever happens."""
    try:
        main(finder)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    guest.libc.reboot(guest.RB_AUTOBOOT)
