"""The first process of a guest whose state is saved: gets ready, stops, goes on in each restored copy.

It runs in the initramfs, where every file of Python's has the host's path. What a worker does before its
first test is done (`rehearsal`); then it says so and waits. The host saves the machine while it waits. In a
restored machine the host plugs in its files, says go, and this process puts them in the initramfs's place.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import glob
import importlib
import json
import os
import random
import struct
import sys
import time
import traceback
from typing import Any

from pytest_bpfmaps.vm import guest, rehearsal

HOST, LAYER, ROOT = "/run/host", "/run/layer", "/run/root"
MS_RDONLY = 1
RNDADDENTROPY = 0x40085203
TAG = "bpfmaps.host"
OPTIONS = "trans=virtio,version=9p2000.L,msize=512000,cache=loose"


def main() -> None:
    """Process 1, from the boot to the end of each copy."""
    guest.mount_all(os.uname().release, "")
    guest.loopback_up()
    rehearsal.rehearse()
    gc.collect()
    gc.freeze()  # a collection would touch, and so copy, every page of what is here
    control, stream = guest.open_port("bpfmaps.control"), guest.open_port("bpfmaps.stream")
    os.write(control, b'{"saved": true}\n')
    go = guest.read_line(control)
    started = time.monotonic()
    time.clock_settime(time.CLOCK_REALTIME, go["time"])
    add_entropy(bytes.fromhex(go["entropy"]))
    random.seed()
    enter_host_files(go["modules"])
    hello = {"release": os.uname().release, "seconds": time.monotonic() - started}
    os.write(control, json.dumps({"hello": hello}).encode() + b"\n")
    guest.work(control, stream)


def add_entropy(seed: bytes) -> None:
    """Makes this copy's random numbers its own: random(4), RNDADDENTROPY."""
    with open("/dev/urandom", "wb") as device:
        fcntl.ioctl(device, RNDADDENTROPY, struct.pack("=ii", len(seed) * 8, len(seed)) + seed)


def enter_host_files(modules: str) -> None:
    """A read-only view of the host's files with a writable layer in memory over it, as root."""
    for folder in (HOST, f"{LAYER}/upper", f"{LAYER}/work", ROOT):
        os.makedirs(folder, exist_ok=True)
    mount_host_files(time.monotonic() + 30)
    layers = f"xino=off,lowerdir={HOST},upperdir={LAYER}/upper,workdir={LAYER}/work"
    must_mount("root", ROOT, "overlay", 0, layers)
    plain = os.open(HOST, os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(plain, guest.HOST_FILES)
    os.close(plain)
    os.chroot(ROOT)
    os.chdir("/")
    guest.mount_all(os.uname().release, modules)
    importlib.invalidate_caches()  # folders have more files now, and the times of change that they had


def mount_host_files(deadline: float) -> None:
    """Mounts them as soon as their device, which was plugged in just now, is there. Raises OSError."""
    while True:
        with contextlib.suppress(OSError):
            if glob.glob("/sys/bus/virtio/drivers/9pnet_virtio/virtio*"):  # bound; ready a moment later
                must_mount(TAG, HOST, "9p", MS_RDONLY, OPTIONS)
                return
        if time.monotonic() > deadline:
            must_mount(TAG, HOST, "9p", MS_RDONLY, OPTIONS)
        time.sleep(0.005)


def must_mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    """mount(2). Raises OSError."""
    if guest.libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()) != 0:
        why = os.strerror(ctypes.get_errno())
        raise OSError(f"bpfmaps: this kernel cannot mount the host's files ({kind}): {why}")


def run() -> Any:
    """`main`, and the end of the machine whatever happens."""
    try:
        main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    guest.libc.reboot(guest.RB_AUTOBOOT)


if __name__ == "__main__":
    run()
