"""Counts the updates of maps, and those that failed, by tracing the kernel's own functions.

No file or command of the kernel tells whether an update failed: only the program sees the return value. So a
small program is attached to the end (``fexit``) of each function that updates a type of map. It counts by the
id of the map. Linux 5.5, commit fec56f5890d9; x86-64, and other architectures with BPF trampolines.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from dataclasses import dataclass
from typing import Self

from pytest_bpfmaps.errors import UnsupportedError, strerror
from pytest_bpfmaps.kernel.bpf_types import MapType, ProgramType
from pytest_bpfmaps.kernel.open_resources import forget, keep, note
from pytest_bpfmaps.kernel.struct_fields import offset_of
from pytest_bpfmaps.kernel.vmlinux_btf import FUNC, arguments_of, type_id, vmlinux_btf
from pytest_bpfmaps.libbpf import capture_log, ffi, lib, opts
from pytest_bpfmaps.libbpf.syscalls import BPF_RAW_TRACEPOINT_OPEN, bpf, pack

_FEXIT = 25  # enum bpf_attach_type
_LOOKUP, _PROBE_READ_KERNEL = 1, 113  # helpers
_MOST_MAPS = 4096
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
FUNCTIONS: dict[MapType, tuple[Function, ...]] = {
    MapType.HASH: _HASH,
    MapType.HASH_OF_MAPS: _HASH,
    MapType.PERCPU_HASH: (Function("htab_percpu_map_update_elem"),),
    MapType.LRU_HASH: (Function("htab_lru_map_update_elem"),),
    MapType.LRU_PERCPU_HASH: (Function("htab_lru_percpu_map_update_elem"),),
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
"""The functions by which programs update a map, or send a record, by the type of map."""

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


class UpdateCounts:
    """Counts for maps that are watched. `close` detaches the programs; it may be called again."""

    def __init__(self) -> None:
        self._refused: dict[str, str] = {}  # why a function can't be traced; empty if it is traced
        self._programs: dict[str, tuple[int, int]] = {}
        self._map = -1
        self._watched: dict[int, str] = {}

    def watch(self, map_id: int, type: MapType | int) -> None:
        """Begins to count for a map."""
        functions = FUNCTIONS.get(type) if isinstance(type, MapType) else None
        if functions is None:
            self._watched[map_id] = f"the functions that update a map of type {type} are not known"
            return
        why = next(filter(None, map(self._trace, functions)), "")
        if not why and (result := self._write(map_id)) < 0:
            why = strerror(-result)
        self._watched[map_id] = why

    def take(self, map_id: int) -> Counts | str:
        """Returns the counts of a map since `watch`, and stops counting; or why they are unknown."""
        why = self._watched.pop(map_id, "nothing counted them")
        if why:
            return why
        out = bytearray(_VALUE.size)
        key = ffi.from_buffer(struct.pack("=I", map_id))
        result = lib.bpf_map_lookup_elem(self._map, key, ffi.from_buffer(out))
        lib.bpf_map_delete_elem(self._map, key)
        if missed := sum(_missed(program) for program, _ in self._programs.values()):
            updates, they = ("1 update", "was") if missed == 1 else (f"{missed} updates", "were")
            return f"{updates} of this run {they} not counted: another one was just being counted"
        return Counts(*_VALUE.unpack(out)) if result == 0 else strerror(-result)

    def _write(self, map_id: int) -> int:
        zero, key = bytes(_VALUE.size), struct.pack("=I", map_id)
        return int(lib.bpf_map_update_elem(self._map, ffi.from_buffer(key), ffi.from_buffer(zero), 0))

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
        if self._map < 0 and (result := self._create()) < 0:
            return f"the kernel refuses a map: {strerror(-result)}"
        program = _load(function, number, _code(function, arguments_of(number), at, self._map))
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

    def _create(self) -> int:
        options = opts("bpf_map_create_opts")
        self._map = int(lib.bpf_map_create(MapType.HASH, b"map_updates", 4, _VALUE.size, _MOST_MAPS, options))
        if self._map >= 0:
            _own(self._map)
        return self._map

    def close(self) -> None:
        """Detaches the programs."""
        descriptors = [fd for pair in self._programs.values() for fd in reversed(pair)]
        descriptors += [self._map] if self._map >= 0 else []
        self._programs, self._map = {}, -1
        self._refused, self._watched = {}, {}
        forget(*descriptors)
        for fd in descriptors:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _missed(program: int) -> int:
    """Returns how often the kernel did not run a program because it was running already (Linux 5.12)."""
    info = ffi.new("struct bpf_prog_info *")
    size = ffi.new("uint32_t *", ffi.sizeof("struct bpf_prog_info"))
    return int(info.recursion_misses) if lib.bpf_obj_get_info_by_fd(program, info, size) == 0 else 0


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


def _code(function: Function, arguments: int, id_offset: int, counts: int) -> bytes:
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
        _insn(0x18, 1, 1, value=counts) + _insn(0),  # r1 = the map with the counts
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
    absent = _insn(0x15, offset=len(choose) + len(add))  # if r0 is NULL, go to the end
    return b"".join([*find, absent, *choose, *add, _insn(0xB7), _insn(0x95)])
