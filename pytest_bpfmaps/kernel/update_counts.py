"""Counts the updates of maps, and those that failed, by tracing the kernel's own functions.

No file or command of the kernel tells whether an update failed: only the program sees the return value. So a
small program is attached to the end (``fexit``) of each function that updates a type of map. It counts by the
id of the map, in memory that this process has mapped: to read counts takes no system call. Linux 5.5, commits
fec56f5890d9 and fc9702273e2e; x86-64, and other architectures with BPF trampolines.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from pytest_bpfmaps.errors import UnsupportedError, strerror
from pytest_bpfmaps.kernel.bpf_types import MapType, ProgramType
from pytest_bpfmaps.kernel.open_resources import forget, keep, note
from pytest_bpfmaps.kernel.struct_fields import offset_of
from pytest_bpfmaps.kernel.vmlinux_btf import FUNC, arguments_of, type_id, vmlinux_btf
from pytest_bpfmaps.libbpf import capture_log, ffi, lib, opts
from pytest_bpfmaps.libbpf.syscalls import BPF_RAW_TRACEPOINT_OPEN, bpf, pack

_FEXIT = 25  # enum bpf_attach_type
_LOOKUP, _PROBE_READ_KERNEL = 1, 113  # helpers
_MMAPABLE = 1 << 10  # BPF_F_MMAPABLE
_MOST_MAPS = 4096  # so that all counts fill whole pages
_INSTRUCTION = struct.Struct("=BBhi")
_VALUE = struct.Struct("=5Q")


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the kernel: its name, and whether it returns a pointer in place of an error number."""

    name: str
    gives_pointer: bool = False


_QUEUE = (Function("queue_stack_map_push_elem"),)
_ARRAY = (Function("array_map_update_elem"),)
_HASH = (Function("htab_map_update_elem"),)
_PERCPU_BY_COMMAND = Function("bpf_percpu_hash_update")  # what the system call uses
FUNCTIONS: dict[MapType, tuple[Function, ...]] = {
    MapType.HASH: _HASH,
    MapType.HASH_OF_MAPS: _HASH,
    MapType.PERCPU_HASH: (Function("htab_percpu_map_update_elem"), _PERCPU_BY_COMMAND),
    MapType.LRU_HASH: (Function("htab_lru_map_update_elem"),),
    MapType.LRU_PERCPU_HASH: (Function("htab_lru_percpu_map_update_elem"), _PERCPU_BY_COMMAND),
    MapType.ARRAY: _ARRAY,
    MapType.PERCPU_ARRAY: _ARRAY,
    MapType.LPM_TRIE: (Function("trie_update_elem"),),
    MapType.QUEUE: _QUEUE,
    MapType.STACK: _QUEUE,
    MapType.RINGBUF: (
        Function("bpf_ringbuf_reserve", gives_pointer=True),
        Function("bpf_ringbuf_output"),
        Function("bpf_ringbuf_reserve_dynptr"),  # Linux 5.19
    ),
}
"""The functions that update a map, or send a record, by the type of map."""

ALL_COUNTED = frozenset(
    {
        *(MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH),
        MapType.RINGBUF,
    }
)
"""The types that get no new entry or record without these functions, by programs or by the system call."""

# functions that older kernels lack, and that programs can't call there
_NEWER = {"bpf_ringbuf_reserve_dynptr"}


@dataclass(frozen=True, slots=True)
class Counts:
    """How many updates of a map came to an end, and why others failed.

    `full`: no room (``E2BIG``, ``EAGAIN``, ``ENOSPC``, or a ring buffer that gave NULL). `memory`: the kernel
    had no memory (``ENOMEM``). `busy`: another program had the map's lock (``EBUSY``). `refused`: all other
    errors, such as ``EEXIST``, which programs ask for by a flag.
    """

    done: int = 0
    full: int = 0
    memory: int = 0
    busy: int = 0
    refused: int = 0

    @property
    def failed(self) -> int:
        """The updates that lost data."""
        return self.full + self.memory + self.busy


NOTHING = Counts()
"""The counts of a map that nobody has updated since the last look."""


@dataclass(slots=True)
class _Watched:
    """A map: the index of its counts and the counts at the last look, or why they are unknown."""

    index: int
    before: bytes
    why: str = ""


class UpdateCounts:
    """Counts for maps that are watched. `close` detaches the programs; it may be called again."""

    def __init__(self) -> None:
        self._refused: dict[str, str] = {}  # why a function can't be traced; empty if it is traced
        self._programs: dict[str, tuple[int, int]] = {}
        self._indexes = self._counts = -1  # maps: the index of each watched map, the counts of all
        self._memory: mmap.mmap | None = None
        self._watched: dict[int, _Watched] = {}
        self._free = list(range(_MOST_MAPS))
        self._info: tuple[Any, Any] = ffi.NULL, ffi.NULL

    def watch(self, map_id: int, type: MapType | int) -> None:
        """Begins to count for a map. Does nothing if it is watched already."""
        if map_id not in self._watched:
            self._watched[map_id] = self._begin(map_id, type)

    def _begin(self, map_id: int, type: MapType | int) -> _Watched:
        functions = FUNCTIONS.get(type) if isinstance(type, MapType) else None
        if functions is None:
            return _Watched(-1, b"", f"the functions that update a map of type {type} are not known")
        if why := next(filter(None, map(self._trace, functions)), ""):
            return _Watched(-1, b"", why)
        if not self._free:
            return _Watched(-1, b"", f"more than {_MOST_MAPS:,} maps are open")
        index = self._free.pop()
        key, value = struct.pack("=I", map_id), struct.pack("=Q", index)
        result = lib.bpf_map_update_elem(self._indexes, ffi.from_buffer(key), ffi.from_buffer(value), 0)
        return _Watched(index, self._read(index), strerror(-result) if result < 0 else "")

    def _read(self, index: int) -> bytes:
        assert self._memory is not None
        return self._memory[index * _VALUE.size : (index + 1) * _VALUE.size]

    def take(self, map_ids: Iterable[int]) -> dict[int, Counts | str]:
        """Returns the counts of each map since the last call or since `watch`; or why they are unknown."""
        missed = sum(self._missed(program) for program, _ in self._programs.values())
        return {each: self._since(self._watched.get(each), missed) for each in map_ids}

    def _since(self, watched: _Watched | None, missed: int) -> Counts | str:
        if watched is None:
            return "nothing counted them"
        if watched.why:
            return watched.why
        if missed:
            updates, they = ("1 update", "was") if missed == 1 else (f"{missed} updates", "were")
            return f"{updates} of this run {they} not counted: another one was just being counted"
        now = self._read(watched.index)
        if now == watched.before:
            return NOTHING
        pairs = zip(_VALUE.unpack(now), _VALUE.unpack(watched.before), strict=True)
        watched.before = now
        return Counts(*(new - old for new, old in pairs))

    def release(self, map_id: int) -> None:
        """Stops counting for a map, which is about to be closed."""
        watched = self._watched.pop(map_id, None)
        if watched is not None and watched.index >= 0:
            key = struct.pack("=I", map_id)
            lib.bpf_map_delete_elem(self._indexes, ffi.from_buffer(key))
            self._free.append(watched.index)

    def _missed(self, program: int) -> int:
        """Returns how often the kernel did not run a program because it was running (Linux 5.12)."""
        info, size = self._info
        size[0] = ffi.sizeof("struct bpf_prog_info")
        ffi.memmove(info, bytes(size[0]), size[0])
        return int(info.recursion_misses) if lib.bpf_obj_get_info_by_fd(program, info, size) == 0 else 0

    def _trace(self, function: Function) -> str:
        """Attaches to a function, once. Returns why that is impossible; an empty text if it is attached."""
        if function.name not in self._refused:
            self._refused[function.name] = self._attach(function)
        return self._refused[function.name]

    def _attach(self, function: Function) -> str:
        try:
            number = type_id(vmlinux_btf(), function.name, FUNC)
            at = offset_of("bpf_map", "id")
        except UnsupportedError as error:
            return str(error.why or error)
        if not number or at is None:
            absent = function.name if not number else "bpf_map.id"
            return "" if function.name in _NEWER else f"the kernel's types have no {absent}"
        if self._memory is None and (why := self._create()):
            return why
        code = _code(function, arguments_of(number), at, self._indexes, self._counts)
        program = _load(function, number, code)
        if program < 0:
            what = "functions" if program == -errno.EPERM else function.name
            return f"the kernel refuses a program that traces {what}: {strerror(-program)}"
        try:
            link = bpf(BPF_RAW_TRACEPOINT_OPEN, pack(("Q", 0), ("I", program), ("I", 0)))
        except OSError as error:
            os.close(program)
            return f"{function.name} can't be traced: {strerror(error.errno or errno.EINVAL)}"
        self._programs[function.name] = program, link
        _own(program, link)
        return ""

    def _create(self) -> str:
        """Makes the maps, and maps the counts. Returns why that is impossible, or an empty text."""
        size = _MOST_MAPS * _VALUE.size
        plain, mapped = opts("bpf_map_create_opts"), opts("bpf_map_create_opts", map_flags=_MMAPABLE)
        made = [int(lib.bpf_map_create(MapType.HASH, b"map_indexes", 4, 8, _MOST_MAPS, plain))]
        if made[0] >= 0:
            made.append(int(lib.bpf_map_create(MapType.ARRAY, b"map_updates", 4, size, 1, mapped)))
        try:
            if made[-1] < 0:
                return f"the kernel refuses a map: {strerror(-made[-1])}"
            memory = mmap.mmap(made[1], size, mmap.MAP_SHARED, mmap.PROT_READ)
        except OSError as error:
            return f"the counts can't be mapped: {strerror(error.errno or errno.EINVAL)}"
        else:
            self._indexes, self._counts = made
            self._memory = memory
            self._info = ffi.new("struct bpf_prog_info *"), ffi.new("uint32_t *")
            _own(*made)
            made.clear()
            return ""
        finally:
            for fd in made:
                os.close(fd) if fd >= 0 else None

    def close(self) -> None:
        """Detaches the programs."""
        descriptors = [fd for pair in self._programs.values() for fd in reversed(pair)]
        descriptors += [fd for fd in (self._indexes, self._counts) if fd >= 0]
        self._programs, self._indexes, self._counts = {}, -1, -1
        self._refused, self._watched = {}, {}
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        forget(*descriptors)
        for fd in descriptors:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _own(*descriptors: int) -> None:
    """Records that these stay open after the test: they belong to the run."""
    note("what counts updates of maps", descriptors)
    keep(descriptors)


def _load(function: Function, number: int, code: bytes) -> int:
    settings = opts("bpf_prog_load_opts", expected_attach_type=_FEXIT, attach_btf_id=number)
    instructions = ffi.cast("struct bpf_insn *", buffer := ffi.from_buffer(code))
    with capture_log():
        name = f"bpfmaps_{function.name}"[:15].encode()  # reports of coverage leave such programs out
        fd = lib.bpf_prog_load(
            ProgramType.TRACING, name, b"GPL", instructions, len(buffer) // _INSTRUCTION.size, settings
        )
    return int(fd)


def _insn(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    registers = src << 4 | dst if sys.byteorder == "little" else dst << 4 | src
    return _INSTRUCTION.pack(code, registers, offset, value)


# of each error: its number, and the place of its count
_PLACES = ((errno.E2BIG, 1), (errno.EAGAIN, 1), (errno.ENOSPC, 1), (errno.ENOMEM, 2), (errno.EBUSY, 3))


def _code(function: Function, arguments: int, id_offset: int, indexes: int, counts: int) -> bytes:
    """Returns the program: it finds the counts of the map, and adds 1 where the return value says.

    R6 has the arguments and, behind them, the return value. The first argument is the map.
    """
    find = [
        _insn(0xBF, 6, 1),  # r6 = r1
        _insn(0x7A, 10, offset=-8),  # *(u64 *)(r10 - 8) = 0
        _insn(0xBF, 1, 10),
        _insn(0x07, 1, value=-8),  # r1 = r10 - 8
        _insn(0xB7, 2, value=4),  # r2 = 4
        _insn(0x79, 3, 6),  # r3 = the map
        _insn(0x07, 3, value=id_offset),
        _insn(0x85, value=_PROBE_READ_KERNEL),
        _insn(0x18, 1, 1, value=indexes) + _insn(0),  # r1 = the map with the indexes
        _insn(0xBF, 2, 10),
        _insn(0x07, 2, value=-8),
        _insn(0x85, value=_LOOKUP),
    ]
    choose = [_insn(0x79, 3, 6, arguments * 8)]  # r3 = the return value
    if function.gives_pointer:
        choose += [_insn(0x55, 3, offset=1), _insn(0x07, value=8)]  # if r3 is NULL, r0 += 8
    else:
        # if w3 s>= 0, go to the end of this part
        choose += [_insn(0x76, 3, offset=3 * len(_PLACES) + 1)]
        for index, (number, place) in enumerate(_PLACES):
            left = 3 * (len(_PLACES) - index - 1) + 1
            # if w3 != -number, go to the next; else r0 += 8 * place, and go to the end of this part
            choose += [
                _insn(0x56, 3, offset=2, value=-number),
                _insn(0x07, value=8 * place),
                _insn(0x05, offset=left),
            ]
        choose += [_insn(0x07, value=32)]
    add = [_insn(0xB7, 1, value=1), _insn(0xDB, 0, 1)]  # lock *(u64 *)(r0 + 0) += 1
    behind = len(choose) + len(add)
    find_counts = [
        _insn(0x15, offset=behind + 6),  # if r0 is NULL, go to the end
        _insn(0x79, 1, 0),  # r1 = the index
        _insn(0x25, 1, offset=behind + 4, value=_MOST_MAPS - 1),  # if r1 is too large, go to the end
        _insn(0x27, 1, value=_VALUE.size),  # r1 *= the size of the counts
        _insn(0x18, 0, 2, value=counts) + _insn(0),  # r0 = the value of the map with the counts
        _insn(0x0F, 0, 1),  # r0 += r1
    ]
    return b"".join([*find, *find_counts, *choose, *add, _insn(0xB7), _insn(0x95)])
