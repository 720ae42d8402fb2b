"""Local storage: values that belong to a socket, a process, a file or a cgroup, and vanish with it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NoReturn

from pytest_bpfmaps.errors import MapKeyError, MapTypeError, UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.map_flags import BPF_ANY
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.maps.dict_protocol import KeyedMap
from pytest_bpfmaps.maps.file_descriptors import closing, describe, descriptor_of, is_path, opened
from pytest_bpfmaps.maps.flags import flags_of


class StorageMap(KeyedMap):
    """A value for each owner. The owner is the key; the kernel can't list the owners."""

    owner: ClassVar[str]  # the kind of owner, with an article
    kind: ClassVar[str] = ""  # what /proc/self/fd shows for a key's descriptor
    give: ClassVar[str]  # how to name an owner
    list_with: ClassVar[str]  # an iterator program that lists the elements

    def __iter__(self) -> Iterator[Any]:
        self.get_next_key()

    def get_next_key(self, key: Any = None) -> NoReturn:
        """Raises `UnsupportedError`."""
        raise UnsupportedError(
            "cannot list the keys of",
            on=str(self),
            why=f"the kernel keeps each value with {self.owner}, and has no list of them for user space",
            fix=f"look up an owner that you know, or load a program with {self.list_with}",
            errno=errno.EOPNOTSUPP,
        )

    def lookup_elem(self, key: Any, flags: int = 0) -> Any:
        """Returns the value of an owner. Raises `MapKeyError` if it has none in this map."""
        out, flags = bytearray(self._value_bytes), flags_of(flags)
        with self._owner(key) as fd:
            result = lib.bpf_map_lookup_elem_flags(self.fd, _key(fd), ffi.from_buffer(out), flags)
            self._check(result, "look up", key, fd, flags)
        return self._decode_value(out)

    def update_elem(self, key: Any, value: Any, flags: int = BPF_ANY) -> None:
        """Gives an owner a value, which programs can read; programs can also make values themselves.

        Raises `MapTypeError` if the key is not such an owner, `MapKeyError` if the owner no longer exists,
        and other errors as `Map` does.
        """
        raw, flags = self._encode_value(value), flags_of(flags)
        with self._owner(key) as fd:
            result = lib.bpf_map_update_elem(self.fd, _key(fd), ffi.from_buffer(raw), flags)
            self._check(result, "update", key, fd, flags)

    def delete_elem(self, key: Any) -> None:
        """Removes an owner's value. Raises `MapKeyError` if it has none."""
        with self._owner(key) as fd:
            self._check(lib.bpf_map_delete_elem(self.fd, _key(fd)), "delete", key, fd)

    def _owner(self, key: Any) -> AbstractContextManager[int]:
        """Returns a context manager with the owner's descriptor, open until the ``with`` block ends."""
        fd = descriptor_of(key)
        if fd is None:
            raise self._no_owner(key, f"it is {type(key).__name__}, not {self.owner}")
        return nullcontext(fd)

    def _check(self, result: int, verb: str, key: Any, fd: int, flags: int = 0) -> None:
        if result >= 0:
            return
        is_what = describe(fd)
        if -result in (errno.EBADF, errno.ENOTSOCK) or self.kind not in is_what:
            raise self._no_owner(key, f"{is_what}, not {self.owner}", -result)
        self._refuse(-result, verb, key, flags)

    def _no_owner(self, key: Any, why: str, number: int | None = None) -> MapTypeError:
        if number:
            why += f" ({reason(number)})"
        return MapTypeError(
            f"cannot use {key!r} as a key", on=f"of {self}", why=why, fix=f"give {self.give}", errno=number
        )

    def _explain_missing(self, key: Any) -> tuple[str | None, str | None]:
        made = "a program makes it (BPF_LOCAL_STORAGE_GET_F_CREATE) or you do"
        return None, f"{self.owner} gets a value when {made}"


class SkStorageMap(StorageMap, types=(MapType.SK_STORAGE,)):
    """``BPF_MAP_TYPE_SK_STORAGE``: Linux 5.2, commit 6ac99e8f23d4. Keys are sockets, or their descriptors.

    https://docs.kernel.org/bpf/map_sk_storage.html.
    """

    owner = "a socket"
    kind = "socket:"
    give = "a socket object or its descriptor"
    list_with = 'SEC("iter/bpf_sk_storage_map")'


class InodeStorageMap(StorageMap, types=(MapType.INODE_STORAGE,)):
    """``BPF_MAP_TYPE_INODE_STORAGE``: Linux 5.10, commit 8ea636848aca; needs ``CONFIG_BPF_LSM=y``.

    Keys are open files, descriptors, or paths (symbolic links are followed).
    """

    owner = "a file"
    give = "an open file, its descriptor, or a path"
    list_with = 'SEC("iter/task_file")'

    def _owner(self, key: Any) -> AbstractContextManager[int]:
        if is_path(key):
            return opened(key, os.O_PATH, f"cannot find the file for {self}")
        return super()._owner(key)


class TaskStorageMap(StorageMap, types=(MapType.TASK_STORAGE,)):
    """``BPF_MAP_TYPE_TASK_STORAGE``: Linux 5.11, commit 4cf1bc1f1045.

    Keys are pidfds, process ids (an int that is not an open pidfd is a process id), or objects with ``.pid``.
    Only a pidfd with ``PIDFD_THREAD`` names the storage of a thread (Linux 6.9, commit 64bef697d33b).
    """

    owner = "a process"
    kind = "pidfd"
    give = "a pidfd (os.pidfd_open), or the id of a living process"
    list_with = 'SEC("iter/task")'

    def _owner(self, key: Any) -> AbstractContextManager[int]:
        fd = descriptor_of(key)
        if fd is not None and not isinstance(key, int):
            return nullcontext(fd)
        pid = fd if fd is not None else getattr(key, "pid", None)
        if not isinstance(pid, int):
            raise self._no_owner(key, f"it is {type(key).__name__}, not {self.owner}")
        return nullcontext(pid) if "pidfd" in describe(pid) else closing(self._open_pidfd(pid))

    def _open_pidfd(self, pid: int) -> int:
        try:
            return os.pidfd_open(pid)
        except OSError as e:
            error = MapKeyError if e.errno == errno.ESRCH else MapTypeError
            raise error(
                f"no process {pid}",
                on=f"for {self}",
                why=reason(e.errno or 0),
                fix=f"give {self.give}",
                errno=e.errno,
            ) from e


class CgroupStorageMap(StorageMap, types=(MapType.CGRP_STORAGE,)):
    """``BPF_MAP_TYPE_CGRP_STORAGE``: Linux 6.2, commit c4bcfb38a95e.

    Keys are paths of cgroups, or their descriptors. https://docs.kernel.org/bpf/map_cgrp_storage.html.
    Any program may use it, unlike the deprecated ``BPF_MAP_TYPE_CGROUP_STORAGE``.
    """

    owner = "a cgroup v2 folder"
    give = "the path of a cgroup (v2), or its descriptor"
    list_with = 'SEC("iter/cgroup")'

    def _owner(self, key: Any) -> AbstractContextManager[int]:
        return cgroup(key) if is_path(key) else super()._owner(key)


def cgroup(path: Any) -> AbstractContextManager[int]:
    """Returns a context manager with a descriptor of a cgroup, open until the ``with`` block ends."""
    return opened(path, os.O_RDONLY | os.O_DIRECTORY, "cannot open the cgroup")


def _key(fd: int) -> Any:
    return ffi.new("int *", fd)
