"""Imports all families of map types, and opens existing maps: by id, by name, by pin."""

from __future__ import annotations

import errno
import os
from typing import Any

from pytest_bpfmaps.errors import MapError, UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.program_info import NAME, programs_of_map
from pytest_bpfmaps.libbpf import check, ffi, lib
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.classes import BY_ID, make_map, open_map_id
from pytest_bpfmaps.maps.families import (  # noqa: F401 - importing a family registers its classes
    arena,
    array,
    bloom,
    cgroup,
    devices,
    hash,
    local_storage,
    lpm_trie,
    map_of_maps,
    percpu,
    prog_array,
    queue,
    sockets,
    stack_trace,
    struct_ops,
    user_ringbuf,
)
from pytest_bpfmaps.maps.foreign_types import foreign_types
from pytest_bpfmaps.maps.info import MapInfo, map_info
from pytest_bpfmaps.maps.pins import Pins


def map_by_id(map_id: int, pins: Pins | None = None) -> Map:
    """Opens the map with that id (``BPF_MAP_GET_FD_BY_ID``, Linux 4.13, commit bd5f5f4ecb78)."""
    return _from_own_fd(open_map_id(map_id), pins=pins)


def pinned_map(path: str, pins: Pins | None = None) -> Map:
    """Opens the map that is pinned at `path` (``BPF_OBJ_GET``, Linux 4.4, commit b2197755b263)."""
    fd = lib.bpf_obj_get(os.fsencode(path))
    fix = "give the path of a pin in a bpf file system" if fd == -errno.ENOENT else None
    check(fd, MapError, "cannot open the pinned map", on=path, fix=fix)
    kind = os.readlink(f"/proc/self/fd/{fd}").removeprefix("anon_inode:")
    if kind != "bpf-map":  # the kernel would return the attributes of another kind of object
        os.close(fd)
        raise MapError("cannot open the pinned map", on=path, why=f"it is a {kind}", errno=errno.EINVAL)
    return _from_own_fd(fd, pins=pins, pinned=[path])


def maps_by_name(name: str, pins: Pins | None = None) -> list[Map]:
    """Returns all loaded maps of that name, oldest first.

    Source: ``BPF_MAP_GET_NEXT_ID``, Linux 4.13, commit bd5f5f4ecb78.

    The kernel keeps the first 15 characters of a name. The rest is compared where BTF has the full name.
    """
    kept = name[:NAME]
    found = []
    at = ffi.new("uint32_t *")
    while (result := lib.bpf_map_get_next_id(at[0], at)) == 0:
        fd = lib.bpf_map_get_fd_by_id(at[0])
        if fd == -errno.ENOENT:  # it was removed meanwhile
            continue
        check(fd, MapError, "cannot open", on=f"map id {at[0]}")
        if _info_of(fd).name != kept:
            os.close(fd)
            continue
        made = _from_own_fd(fd, pins=pins)
        if name == kept or made.name in (name, kept):
            found.append(made)
        else:
            made.close()
    if result != -errno.ENOENT:
        fix = BY_ID if result == -errno.EPERM else None
        check(result, MapError, "cannot list", on="the loaded maps", fix=fix)
    return found


def _from_own_fd(fd: int, **options: Any) -> Map:
    info = _info_of(fd)
    try:
        types = foreign_types(info, lambda: programs_of_map(info.id))
        return make_map(fd, types.info, types.codecs, **{"name": types.name, **options})
    except BaseException:
        os.close(fd)
        raise


def _info_of(fd: int) -> MapInfo:
    """Returns `map_info`; closes the descriptor if that fails."""
    try:
        return map_info(fd)
    except BaseException:
        os.close(fd)
        raise


def require_type(the_map: Map, *types: MapType) -> None:
    """Raises `UnsupportedError` unless the map is of one of the types."""
    if the_map.type not in types:
        wanted = " or ".join(str(t) for t in types)
        raise UnsupportedError("cannot use", on=str(the_map), why=f"it is not a {wanted} map")
