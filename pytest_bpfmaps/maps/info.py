"""Reads a map's attributes from the kernel: ``BPF_OBJ_GET_INFO_BY_FD``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pytest_bpfmaps.btf import BytesCodec, Codec, Codecs
from pytest_bpfmaps.btf.codec import IntCodec
from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.libbpf import check, ffi, lib, to_str

INDEXED = frozenset(
    {
        *(MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.PROG_ARRAY, MapType.PERF_EVENT_ARRAY),
        *(MapType.CGROUP_ARRAY, MapType.ARRAY_OF_MAPS, MapType.DEVMAP, MapType.CPUMAP, MapType.XSKMAP),
        *(MapType.SOCKMAP, MapType.REUSEPORT_SOCKARRAY, MapType.STACK_TRACE, MapType.STRUCT_OPS),
    }
)
"""Maps whose keys are indices from 0 to `max_entries` - 1."""

BUFFERS = frozenset({MapType.RINGBUF, MapType.USER_RINGBUF, MapType.PERF_EVENT_ARRAY})
"""Maps that carry records; their declared value type is the type of the records."""


@dataclass(frozen=True, slots=True)
class MapInfo:
    """A map's attributes; sizes in bytes. The kernel cuts `name` after 15 characters."""

    type: MapType | int
    id: int
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int
    btf_vmlinux_value_type_id: int = 0
    map_extra: int = 0
    inner: MapInfo | None = None
    """For a map of maps: the known attributes of its inner maps; their `id` and `btf_id` are 0."""


def map_info(fd: int) -> MapInfo:
    """Returns the attributes of the map with that descriptor (Linux 4.13, commit 1e2709769086)."""
    raw = ffi.new("struct bpf_map_info *")
    size = ffi.new("uint32_t *", ffi.sizeof("struct bpf_map_info"))
    check(
        lib.bpf_obj_get_info_by_fd(fd, raw, size),
        MapError,
        "cannot read the attributes of",
        on=f"map fd {fd}",
    )
    return MapInfo(
        type=MapType.from_number(raw.type),
        id=raw.id,
        name=to_str(raw.name),
        key_size=raw.key_size,
        value_size=raw.value_size,
        max_entries=raw.max_entries,
        flags=raw.map_flags,
        btf_id=raw.btf_id,
        btf_key_type_id=raw.btf_key_type_id,
        btf_value_type_id=raw.btf_value_type_id,
        btf_vmlinux_value_type_id=raw.btf_vmlinux_value_type_id,
        map_extra=raw.map_extra,
    )


def untyped_info(fd: int) -> MapInfo:
    """Returns the attributes of the model of inner maps, without the ids of its types.

    Those ids belong to another BTF than that of the outer map.
    """
    return replace(map_info(fd), btf_key_type_id=0, btf_value_type_id=0)


def codecs_for(info: MapInfo, codecs: Codecs | None) -> tuple[Codec, Codec]:
    """Returns codecs of a map's key and value: from BTF if it has types, else for plain bytes.

    Keys of maps that are indexed by number are always ints.
    """
    key = _typed(codecs, info.btf_key_type_id, info.key_size)
    # a buffer's declared value type is the type of its records, so its size differs from the map's value size
    value_size = None if info.type in BUFFERS else info.value_size
    value = _typed(codecs, info.btf_value_type_id, value_size)
    if key is None:
        indexed = info.type in INDEXED and info.key_size == 4
        key = IntCodec("__u32", 4, signed=False) if indexed else _plain(info.key_size)
    return key, value or _plain(info.value_size)


def _typed(codecs: Codecs | None, type_id: int, size: int | None) -> Codec | None:
    if codecs is None or not type_id:
        return None
    codec = codecs.get(type_id)
    return codec if size in (None, codec.size) else None


def _plain(size: int) -> Codec:
    return BytesCodec(f"{size} bytes", size)
