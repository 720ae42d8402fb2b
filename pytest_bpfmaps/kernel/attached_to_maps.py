"""Finds programs that are attached to sockmaps, or are functions of a registered struct, without a link."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pytest_bpfmaps.kernel.bpf_types import MapType, ProgramType
from pytest_bpfmaps.kernel.program_info import loaded_ids, program_info
from pytest_bpfmaps.libbpf import ffi, lib

# enum bpf_attach_type: sk_skb_stream_parser, sk_skb_stream_verdict, sk_skb_verdict; sk_msg_verdict
_OF_SOCKMAPS = {ProgramType.SK_SKB: (4, 5, 38), ProgramType.SK_MSG: (7,)}
_SOCKMAPS = (MapType.SOCKMAP, MapType.SOCKHASH)
_IN_USE = 1  # in enum bpf_struct_ops_state; a struct for links is 3, ready
_STATE = 1  # the place of the state in struct bpf_struct_ops_common_value, which begins each value


class AtMap(NamedTuple):
    """A program at a map. `type` is ``sockmap`` or ``struct_ops``; `attach_type` is the kernel's, or -1."""

    program_id: int
    type: str
    map_id: int
    attach_type: int = -1


def programs_at_maps(types: Iterable[ProgramType | int]) -> list[AtMap]:
    """Returns where programs of these types are attached to sockmaps (Linux 5.18 tells it), or registered."""
    wanted = set(types) & {*_OF_SOCKMAPS, ProgramType.STRUCT_OPS}
    return [each for map_id in (loaded_ids("map") if wanted else ()) for each in _at_map(map_id, wanted)]


def functions_of_struct(map_id: int) -> list[int]:
    """Returns the ids of the programs of a struct_ops map that is registered, or that has a link."""
    with _opened(map_id) as (fd, info):
        return _functions(fd, info.value_size)[1] if info.type == MapType.STRUCT_OPS else []


def _at_map(map_id: int, wanted: set[ProgramType | int]) -> Iterator[AtMap]:
    with _opened(map_id) as (fd, info):
        if info.type in _SOCKMAPS:
            for number in (each for type, all in _OF_SOCKMAPS.items() if type in wanted for each in all):
                yield from (AtMap(each, "sockmap", map_id, number) for each in _query(fd, number))
        elif info.type == MapType.STRUCT_OPS and ProgramType.STRUCT_OPS in wanted:
            state, programs = _functions(fd, info.value_size)
            yield from (AtMap(each, "struct_ops", map_id) for each in programs if state == _IN_USE)


@contextmanager
def _opened(map_id: int) -> Iterator[tuple[int, Any]]:
    """Yields a descriptor of a map, and its info, in which all is 0 if the map went meanwhile."""
    info = ffi.new("struct bpf_map_info *")
    fd = int(lib.bpf_map_get_fd_by_id(map_id))
    try:
        lib.bpf_obj_get_info_by_fd(fd, info, ffi.new("uint32_t *", ffi.sizeof("struct bpf_map_info")))
        yield fd, info
    finally:
        if fd >= 0:
            os.close(fd)


def _query(fd: int, attach_type: int) -> list[int]:
    found, count = ffi.new("uint32_t *"), ffi.new("uint32_t *", 1)  # a sockmap has one of each kind
    refused = lib.bpf_prog_query(fd, attach_type, 0, ffi.NULL, found, count) < 0
    return [] if refused or not count[0] else [int(found[0])]


def _functions(fd: int, size: int) -> tuple[int, list[int]]:
    """Returns the state of a struct, and its programs: the kernel shows an id in place of a function."""
    value = ffi.new("uint32_t[]", size // 4)
    if lib.bpf_map_lookup_elem(fd, ffi.new("uint32_t *"), value) < 0:
        return 0, []
    words = list(value)
    ids = dict.fromkeys(low for low, high in zip(words[2::2], words[3::2], strict=False) if not high)
    found = (program_info(each) for each in ids if each)
    functions = [each.id for each in found if each is not None and each.type is ProgramType.STRUCT_OPS]
    return words[_STATE], functions
