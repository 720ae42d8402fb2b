"""Reads the attributes of loaded programs, and the ids of programs, maps and links: ``BPF_*_GET_NEXT_ID``."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.libbpf import ffi, lib, to_str

_MOST_MAPS = 64  # MAX_USED_MAPS
_FUNCTION = 8  # bytes of struct bpf_func_info
NAME = 15
"""How many characters of a name the kernel keeps."""


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """A loaded program. `name` is cut after 15 characters; `load_time` is in nanoseconds since boot.

    `function_type` is the BTF id of its function, 0 without BTF. `run_count` counts while the kernel's
    statistics are on. `attach_btf` and `attach_type_id` are ids of the BTF, and of the function in it, that a
    tracing program is for (Linux 6.1). `instructions` is how many the verifier processed (Linux 5.16).
    `jited_size` and `translated_size` are the bytes of the machine code, and of the kernel's own form of the
    program. A number that the kernel does not tell is 0.
    """

    id: int
    type: ProgramType | int
    name: str
    btf_id: int
    function_type: int
    map_ids: tuple[int, ...]
    load_time: int
    run_count: int
    created_by: int
    attach_btf: int
    attach_type_id: int
    instructions: int
    jited_size: int
    translated_size: int


class ForeignProgram(NamedTuple):
    """A program that another process has loaded. `name` is in full where its BTF has it."""

    name: str
    info: ProgramInfo


def program_info(number: int) -> ProgramInfo | None:
    """Returns the attributes of the program with that id; None if it is gone. Raises OSError."""
    fd = int(lib.bpf_prog_get_fd_by_id(number))
    if fd == -errno.ENOENT:
        return None
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd))
    try:
        return _info(fd)
    finally:
        os.close(fd)


def _info(fd: int) -> ProgramInfo:
    info: Any = ffi.new("struct bpf_prog_info *")
    size = ffi.new("uint32_t *", ffi.sizeof("struct bpf_prog_info"))
    maps, function = ffi.new("uint32_t[]", _MOST_MAPS), ffi.new("uint32_t[2]")
    info.nr_map_ids, info.map_ids = _MOST_MAPS, int(ffi.cast("uintptr_t", maps))
    info.nr_func_info, info.func_info_rec_size = 1, _FUNCTION
    info.func_info = int(ffi.cast("uintptr_t", function))
    result = lib.bpf_obj_get_info_by_fd(fd, info, size)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return ProgramInfo(
        id=int(info.id),
        type=ProgramType.from_number(info.type),
        name=to_str(info.name),
        btf_id=int(info.btf_id),
        function_type=int(function[1]) if info.nr_func_info else 0,
        map_ids=tuple(maps[0 : min(info.nr_map_ids, _MOST_MAPS)]),
        load_time=int(info.load_time),
        run_count=int(info.run_cnt),
        created_by=int(info.created_by_uid),
        attach_btf=int(info.attach_btf_obj_id),
        attach_type_id=int(info.attach_btf_id),
        instructions=int(info.verified_insns),
        jited_size=int(info.jited_prog_len),
        translated_size=int(info.xlated_prog_len),
    )


def loaded_ids(kind: str) -> list[int]:
    """Returns the ids of all loaded objects of a kind: ``prog``, ``map`` or ``link``. Raises OSError."""
    step = getattr(lib, f"bpf_{kind}_get_next_id")
    found: list[int] = []
    number = ffi.new("uint32_t *")
    while (result := step(number[0], number)) == 0:
        found.append(int(number[0]))
    if result != -errno.ENOENT:
        raise OSError(-result, os.strerror(-result))
    return found


def programs_of_map(map_id: int) -> list[ProgramInfo]:
    """Returns the loaded programs that use a map, oldest first. Raises OSError."""
    found = (program_info(number) for number in loaded_ids("prog"))
    return [each for each in found if each is not None and map_id in each.map_ids]


def is_cut(name: str) -> bool:
    """Returns whether the kernel may have cut a name."""
    return len(name) == NAME
