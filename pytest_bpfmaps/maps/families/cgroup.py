"""Maps of cgroups: arrays, and the older kind of storage, with a value for each attached program."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NoReturn

from pytest_bpfmaps.btf import Codec, Codecs
from pytest_bpfmaps.btf.codec import IntCodec
from pytest_bpfmaps.btf.field import Field
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.errors import MapTypeError, MapValueError, closest
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.libbpf import ffi, lib, to_str
from pytest_bpfmaps.maps.families.local_storage import cgroup
from pytest_bpfmaps.maps.families.percpu import PerCpuHashMap
from pytest_bpfmaps.maps.file_descriptors import descriptor_of, is_path
from pytest_bpfmaps.maps.info import MapInfo
from pytest_bpfmaps.maps.references import ReferenceMap
from pytest_bpfmaps.maps.sparse import SparseMap

_GIVE = "the path of a cgroup (v2), or its descriptor"


class CgroupArrayMap(ReferenceMap, types=(MapType.CGROUP_ARRAY,)):
    """``BPF_MAP_TYPE_CGROUP_ARRAY``: Linux 4.8, commit 4ed8ec521ed5.

    ``m[i] = "/sys/fs/cgroup/x"``, or a descriptor. Programs ask whether a task or packet belongs to a cgroup
    below one of them. The kernel does not let user space read the map.
    """

    wanted = "a cgroup v2 folder"

    def _as_descriptor(self, value: Any) -> AbstractContextManager[int]:
        return cgroup(value) if is_path(value) else super()._as_descriptor(value)


class CgroupId(int):
    """A cgroup's inode number, which is its id in the kernel; it can be used as a key."""

    def __repr__(self) -> str:
        return f"<cgroup id {int(self)}>"

    __str__ = __repr__


class AttachedStorageMap(SparseMap, types=(MapType.CGROUP_STORAGE,)):
    """``BPF_MAP_TYPE_CGROUP_STORAGE``: Linux 4.19, commit de9cbbaadba5. Deprecated by ``CGRP_STORAGE`` (6.2).

    https://docs.kernel.org/bpf/map_cgroup_storage.html. The kernel makes an element when a program that uses
    the map is attached to a cgroup, and removes it with the cgroup. Elements can be overwritten, not deleted.

    Keys are a cgroup's path or descriptor, or ``(cgroup, "cgroup_inet_egress")`` if programs of several
    attach types share the map. Iteration gives the fields of the C key: ``cgroup_inode_id`` and
    ``attach_type``. If the key is only the id (Linux 5.9, commit 7d9c3427894f), iteration gives a `CgroupId`.
    """

    def __init__(self, fd: int, info: MapInfo, codecs: Codecs | None, **options: Any) -> None:
        super().__init__(fd, info, codecs, **options)
        self._key: Codec = _IdCodec() if info.key_size == 8 else _KEY

    def delete_elem(self, key: Any) -> NoReturn:
        """Raises `MapTypeError`: only the kernel removes elements."""
        raise MapTypeError(
            f"cannot delete {key!r}",
            on=f"in {self}",
            why="its elements live as long as the program is attached to the cgroup",
            fix="detach the program, or write a zero value",
        )

    def _encode_key(self, key: Any) -> bytes:
        if isinstance(key, CgroupId):
            return self._find_key(key, None, key) if self.key_size > 8 else super()._encode_key(key)
        match key:
            case (owner, int() | str() as attach_type) if self.key_size > 8 and _is_cgroup(owner):
                return self._key.encode((cgroup_id(owner), _number(attach_type, key)), self._key_where)
            case owner if _is_cgroup(owner):
                number = cgroup_id(owner)
                return (
                    self._find_key(number, owner, key) if self.key_size > 8 else self._key.encode(number, "")
                )
        return super()._encode_key(key)

    def _find_key(self, number: int, owner: Any, key: Any) -> bytes:
        """Returns the whole key of a cgroup if the attach type is left out; there must be only one."""
        found = [raw for raw, _ in self._raw_items() if self._key.decode(raw).cgroup_inode_id == number]
        if len(found) > 1:
            types = [attach_type_name(self._key.decode(raw).attach_type) for raw in found]
            raise MapValueError(
                f"cannot decide which element of {key!r} is meant",
                on=f"in {self}",
                why=f"programs of several attach types share it: {', '.join(types)}",
                fix=f"use ({key!r}, {types[0]!r}) as the key",
            )
        if not found:
            self._refuse(errno.ENOENT, "look up", key)
        return found[0]

    def __contains__(self, key: Any) -> bool:
        try:
            return super().__contains__(key)
        except KeyError:
            return False

    def get(self, key: Any, default: Any = None) -> Any:
        """Returns the value of `key`, or `default` if it is missing."""
        try:
            return super().get(key, default)
        except KeyError:
            return default


class PerCpuAttachedStorageMap(AttachedStorageMap, PerCpuHashMap, types=(MapType.PERCPU_CGROUP_STORAGE,)):
    """``BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE``: the same per CPU. Linux 4.20, commit b741f1630346."""


class _IdCodec(IntCodec):
    def __init__(self) -> None:
        super().__init__("cgroup id", 8, signed=False)

    def decode(self, data: Any, offset: int = 0) -> Any:
        return CgroupId(super().decode(data, offset))

    def decode_all(self, data: Any) -> list[Any]:
        return [CgroupId(number) for number in super().decode_all(data)]


_KEY = StructCodec(
    "struct bpf_cgroup_storage_key",
    16,
    [Field("cgroup_inode_id", _IdCodec(), 0), Field("attach_type", IntCodec("__u32", 4, signed=False), 8)],
)


def _is_cgroup(thing: Any) -> bool:
    return is_path(thing) or descriptor_of(thing) is not None


def cgroup_id(owner: Any) -> int:
    """Returns the id of a cgroup that is given by path, by descriptor or by id."""
    if isinstance(owner, CgroupId):
        return owner
    fd = None if is_path(owner) else descriptor_of(owner)
    with cgroup(owner) if fd is None else nullcontext(fd) as number:
        try:
            return os.fstat(number).st_ino
        except OSError as e:
            why = f"fd {number} is not open"
            raise MapTypeError(
                f"cannot use {owner!r} as a key", why=why, fix=f"give {_GIVE}", errno=e.errno
            ) from e


@cache
def _attach_types() -> dict[str, int]:
    """Returns the kernel's attach types by libbpf's names."""
    return dict(_named_attach_types())


def _named_attach_types() -> Iterator[tuple[str, int]]:
    number = 0
    while (name := lib.libbpf_bpf_attach_type_str(number)) != ffi.NULL:
        yield to_str(name), number
        number += 1


def attach_type_name(number: int) -> str:
    """Returns a name such as ``cgroup_inet_egress``; the number as text if libbpf has no name."""
    return next((name for name, known in _attach_types().items() if known == number), str(number))


def _number(attach_type: int | str, key: Any) -> int:
    if isinstance(attach_type, int):
        return attach_type
    name = attach_type.lower().removeprefix("bpf_")
    if name not in _attach_types():
        fix = closest(name, _attach_types())
        raise MapValueError(f"cannot use {key!r} as a key", why=f"no attach type {attach_type!r}", fix=fix)
    return _attach_types()[name]
