"""Opens and loads bad objects in a process of its own, so that a crash does not end the test run.

    python fuzz_child.py OBJECT FIRST COUNT

Prints ``at SEED`` before each input, ``bad SEED TEXT`` for an error of another project, ``leak SEED
DESCRIPTORS`` for descriptors that stay open, and ``done OPENED LOADED REFUSED`` at the end.
"""

import contextlib
import faulthandler
import os
import resource
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from mutations import mutated

from pytest_bpfmaps.elf.editor import Elf
from pytest_bpfmaps.errors import BpfError
from pytest_bpfmaps.libbpf import lib
from pytest_bpfmaps.objects import OpenedObject

MOST_BYTES = 1 << 22  # the largest map: the kernel would allocate more, but this machine has other users


def regions(data):
    """Yields the ranges to change: None is everything; the others are parts that are parsed."""
    elf = Elf(data)
    yield None
    yield None
    yield 0, 64
    start = int.from_bytes(data[40:48], "little")
    yield start, start + 64 * len(elf.sections)
    for section in elf.sections:
        offset, size = section.fields[4:6]
        if section.name.startswith((".BTF", ".rel", ".symtab", ".maps", "maps")) and size > 16:
            yield offset, offset + size
            if section.name == ".BTF":
                yield offset, offset + 24


def is_small(opened):
    maps = [m.handle for m in opened.maps]
    sizes = [
        lib.bpf_map__max_entries(m) * (lib.bpf_map__key_size(m) + lib.bpf_map__value_size(m) or 1)
        for m in maps
    ]
    return all(size <= MOST_BYTES for size in sizes)


def descriptors():
    """Returns the open descriptors of this process: number and target."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if not target.endswith("/fd"):
                found.add((int(name), target))
    return found


def attempt(path, counts):
    with OpenedObject(path) as opened:
        counts["opened"] += 1
        if not is_small(opened):
            return
        try:
            opened.load().close()
            counts["loaded"] += 1
        except BpfError as error:
            counts["refused"] += bool(str(error))


def main(path, first, count):
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    data = Path(path).read_bytes()
    places = list(regions(data))
    bad = Path(f"/dev/shm/fuzz-{os.getpid()}.bpf.o")
    counts = {"opened": 0, "loaded": 0, "refused": 0}
    with OpenedObject(Path(path)) as opened, contextlib.suppress(BpfError):
        opened.load().close()  # this opens the descriptors that stay open
    before = descriptors()
    try:
        for seed in range(int(first), int(first) + int(count)):
            print("at", seed, flush=True)
            bad.write_bytes(mutated(data, seed, within=places[seed % len(places)]))
            try:
                attempt(bad, counts)
            except BpfError as error:
                if not str(error):
                    print("bad", seed, "an error without a message", flush=True)
            except Exception:
                print("bad", seed, traceback.format_exc().replace("\n", "\\n"), flush=True)
            left = descriptors() - before
            if left:
                print("leak", seed, sorted(left), flush=True)
                before |= left
    finally:
        bad.unlink()
    print("done", *counts.values())


if __name__ == "__main__":
    main(*sys.argv[1:])
