"""Reads the types that an object's source declares for a map, before libbpf loads the object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.libbpf import ffi, lib, to_str
from pytest_bpfmaps.maps.info import MapInfo


@dataclass(frozen=True, slots=True)
class DeclaredTypes:
    """The ids of a map's key and value types in its object's BTF (0: none); `inner` is for a map of maps.

    libbpf does not give these types to the kernel for queues, maps of maps, device and socket maps, and does
    not keep them.
    """

    key: int
    value: int
    inner: MapInfo | None = None

    def applied_to(self, info: MapInfo) -> MapInfo:
        """Returns the kernel's attributes with these types."""
        return replace(info, btf_key_type_id=self.key, btf_value_type_id=self.value, inner=self.inner)


def declared_types(handle: Any) -> DeclaredTypes:
    """Returns the declared types of a ``struct bpf_map *`` that is not loaded yet."""
    inner = lib.bpf_map__inner_map(handle)
    return DeclaredTypes(
        lib.bpf_map__btf_key_type_id(handle),
        lib.bpf_map__btf_value_type_id(handle),
        None if inner == ffi.NULL else _declared_info(inner),
    )


def _declared_info(handle: Any) -> MapInfo:
    return MapInfo(
        type=MapType.from_number(lib.bpf_map__type(handle)),
        id=0,
        name=to_str(lib.bpf_map__name(handle)),
        key_size=lib.bpf_map__key_size(handle),
        value_size=lib.bpf_map__value_size(handle),
        max_entries=lib.bpf_map__max_entries(handle),
        flags=lib.bpf_map__map_flags(handle),
        btf_id=0,
        btf_key_type_id=lib.bpf_map__btf_key_type_id(handle),
        btf_value_type_id=lib.bpf_map__btf_value_type_id(handle),
    )
