"""Creates a minimal map of each type to find out whether the kernel takes it; see `probe_programs`."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.probe_programs import INT_ID, Verdict, load_function_btf
from pytest_bpfmaps.libbpf import capture_log, ffi, lib, opts

_NO_PREALLOC = 1 << 0
_MMAPABLE = 1 << 10


@dataclass(frozen=True, slots=True)
class _Wants:
    """What maps of a type require: sizes in bytes, elements, flags, kinds of descriptors."""

    key: int = 4
    value: int = 4
    entries: int = 1
    flags: int = 0
    typed: bool = False  # key and value have BTF
    inner: bool = False


_STORAGE = _Wants(entries=0, flags=_NO_PREALLOC, typed=True)
_CGROUP_STORAGE = _Wants(key=16, value=8, entries=0)  # struct bpf_cgroup_storage_key
_OF_MAPS = _Wants(inner=True)
_RING = _Wants(key=0, value=0, entries=mmap.PAGESIZE)
_WANTS = {
    MapType.STACK_TRACE: _Wants(value=8),
    MapType.LPM_TRIE: _Wants(key=8, flags=_NO_PREALLOC),
    MapType.ARRAY_OF_MAPS: _OF_MAPS,
    MapType.HASH_OF_MAPS: _OF_MAPS,
    MapType.CGROUP_STORAGE: _CGROUP_STORAGE,
    MapType.PERCPU_CGROUP_STORAGE: _CGROUP_STORAGE,
    MapType.QUEUE: _Wants(key=0),
    MapType.STACK: _Wants(key=0),
    MapType.SK_STORAGE: _STORAGE,
    MapType.INODE_STORAGE: _STORAGE,
    MapType.TASK_STORAGE: _STORAGE,
    MapType.CGRP_STORAGE: _STORAGE,
    MapType.RINGBUF: _RING,
    MapType.USER_RINGBUF: _RING,
    MapType.BLOOM_FILTER: _Wants(key=0),
    MapType.ARENA: _Wants(key=0, value=0, flags=_MMAPABLE),
    MapType.INSN_ARRAY: _Wants(value=16),  # struct bpf_insn_array_value
    MapType.RHASH: _Wants(flags=_NO_PREALLOC),
}


def try_map(type: MapType) -> Verdict:
    """Tries to create a map of a type with one element.

    A struct_ops map must have a struct that the kernel has registered. A kernel that knows such maps refuses
    any other struct with a special error, `ENOTSUPP`.
    """
    wants = _WANTS.get(type, _Wants())
    settings = opts("bpf_map_create_opts", map_flags=wants.flags)
    needed = None
    if type is MapType.STRUCT_OPS:
        settings.btf_vmlinux_value_type_id = 1
    elif wants.typed:
        needed = load_function_btf()
        settings.btf_fd = max(needed, 0)
        settings.btf_key_type_id = settings.btf_value_type_id = INT_ID
    elif wants.inner:
        needed = _create(MapType.HASH, _Wants())
        settings.inner_map_fd = max(needed, 0)
    if needed is not None and needed < 0:
        return Verdict(-needed)
    fd = _create(type, wants, settings)
    for made in (fd, needed):
        if made is not None and made >= 0:
            os.close(made)
    return Verdict(max(-fd, 0))


def _create(type: MapType, wants: _Wants, settings: object = ffi.NULL) -> int:
    with capture_log():
        return int(lib.bpf_map_create(type, ffi.NULL, wants.key, wants.value, wants.entries, settings))
