"""Which class serves which map type."""

from __future__ import annotations

import errno
import os

from ..btf import Codecs
from ..errors import MapError, UnsupportedError
from ..kernel.types import MapType
from ..libbpf import check, ffi, lib
from .arena import ArenaMap
from .array import ArrayMap
from .base import Map, info_of
from .bloom import BloomFilterMap
from .cgroups import AttachedStorageMap, CgroupArrayMap, PerCpuAttachedStorageMap
from .devices import CpuMap, DevMap
from .hash import HashMap
from .info import MapInfo
from .kernel_btf import load_codecs
from .lpm_trie import LpmTrieMap
from .nested import MapOfMaps
from .percpu import PerCpuArrayMap, PerCpuHashMap
from .prog_array import ProgArrayMap
from .queue import QueueMap
from .sockets import ReuseportMap, SockMap, XskMap
from .stack_trace import StackTraceMap
from .storage import CgroupStorageMap, InodeStorageMap, SkStorageMap, TaskStorageMap
from .struct_ops import StructOpsMap
from .user_ringbuf import UserRingBufMap

CLASSES: dict[int, type[Map]] = {
    MapType.HASH: HashMap,
    MapType.LRU_HASH: HashMap,
    MapType.RHASH: HashMap,
    MapType.ARRAY: ArrayMap,
    MapType.PERCPU_HASH: PerCpuHashMap,
    MapType.LRU_PERCPU_HASH: PerCpuHashMap,
    MapType.PERCPU_ARRAY: PerCpuArrayMap,
    MapType.LPM_TRIE: LpmTrieMap,
    MapType.QUEUE: QueueMap,
    MapType.STACK: QueueMap,
    MapType.BLOOM_FILTER: BloomFilterMap,
    MapType.ARRAY_OF_MAPS: MapOfMaps,
    MapType.HASH_OF_MAPS: MapOfMaps,
    MapType.PROG_ARRAY: ProgArrayMap,
    MapType.STACK_TRACE: StackTraceMap,
    MapType.CGROUP_ARRAY: CgroupArrayMap,
    MapType.CGROUP_STORAGE: AttachedStorageMap,
    MapType.PERCPU_CGROUP_STORAGE: PerCpuAttachedStorageMap,
    MapType.SK_STORAGE: SkStorageMap,
    MapType.INODE_STORAGE: InodeStorageMap,
    MapType.TASK_STORAGE: TaskStorageMap,
    MapType.CGRP_STORAGE: CgroupStorageMap,
    MapType.SOCKMAP: SockMap,
    MapType.SOCKHASH: SockMap,
    MapType.REUSEPORT_SOCKARRAY: ReuseportMap,
    MapType.XSKMAP: XskMap,
    MapType.DEVMAP: DevMap,
    MapType.DEVMAP_HASH: DevMap,
    MapType.CPUMAP: CpuMap,
    MapType.USER_RINGBUF: UserRingBufMap,
    MapType.STRUCT_OPS: StructOpsMap,
    MapType.ARENA: ArenaMap,
}
"""By type; other floors add theirs. A type that is not here gets the plain `Map` with the kernel's verbs."""


BY_ID = "to look at what others loaded needs CAP_SYS_ADMIN: run as root, or in a virtual machine"


def make_map(
    fd: int, info: MapInfo, codecs: Codecs | None, *, name: str | None = None, owned: bool = True
) -> Map:
    """The map object for a descriptor."""
    return CLASSES.get(info.type, Map)(fd, info, codecs, name=name, owned=owned)


def map_by_id(map_id: int) -> Map:
    """Opens the map with that id (``BPF_MAP_GET_FD_BY_ID``, Linux 4.13, commit bd5f5f4ecb78)."""
    return _from_own_fd(open_map_id(map_id))


def open_map_id(map_id: int) -> int:
    """A new descriptor of the map with that id."""
    fd = lib.bpf_map_get_fd_by_id(map_id)
    fix = {-errno.ENOENT: "list the ids with 'bpftool map list'", -errno.EPERM: BY_ID}.get(fd)
    return check(fd, MapError, "cannot open", on=f"map id {map_id}", fix=fix)


def pinned_map(path: str) -> Map:
    """Opens the map that is pinned at `path` (``BPF_OBJ_GET``, Linux 4.4, commit b2197755b263)."""
    fd = lib.bpf_obj_get(os.fsencode(path))
    fix = "is it pinned there, and is this a bpf file system?" if fd == -errno.ENOENT else None
    check(fd, MapError, "cannot open the pinned map", on=path, fix=fix)
    kind = os.readlink(f"/proc/self/fd/{fd}").removeprefix("anon_inode:")
    if kind != "bpf-map":  # the kernel would fill in another struct of attributes
        os.close(fd)
        raise MapError("cannot open the pinned map", on=path, why=f"it is a {kind}", errno=errno.EINVAL)
    return _from_own_fd(fd)


def maps_by_name(name: str) -> list[Map]:
    """All loaded maps of that name, oldest first (``BPF_MAP_GET_NEXT_ID``, Linux 4.13, commit bd5f5f4ecb78).

    The kernel keeps the first 15 characters of a name, so only those are compared.
    """
    kept = name[:15]
    found = []
    at = ffi.new("uint32_t *")
    while (result := lib.bpf_map_get_next_id(at[0], at)) == 0:
        fd = lib.bpf_map_get_fd_by_id(at[0])
        if fd == -errno.ENOENT:  # it went away meanwhile
            continue
        check(fd, MapError, "cannot open", on=f"map id {at[0]}")
        if info_of(fd).name == kept:
            found.append(_from_own_fd(fd))
        else:
            os.close(fd)
    if result != -errno.ENOENT:
        fix = BY_ID if result == -errno.EPERM else None
        check(result, MapError, "cannot list", on="the loaded maps", fix=fix)
    return found


def _from_own_fd(fd: int) -> Map:
    info = info_of(fd)
    try:
        return make_map(fd, info, load_codecs(info.btf_id) if info.btf_id else None)
    except BaseException:
        os.close(fd)
        raise


def require_type(the_map: Map, *types: MapType) -> None:
    """Raises `UnsupportedError` unless the map is of one of the types."""
    if the_map.type not in types:
        wanted = " or ".join(str(t) for t in types)
        raise UnsupportedError("cannot use", on=str(the_map), why=f"it is no {wanted} map")
