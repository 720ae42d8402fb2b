"""Arenas: memory that programs and a test share, pointers included."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.errors import MapError, MapValueError, NameLookupError, UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.feature_releases import came_with
from pytest_bpfmaps.kernel.features import probe
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.libbpf import check, ffi, lib, opts, to_str
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.info import MapInfo, map_info

_MAP_SHARED, _MAP_FIXED_NOREPLACE = 0x01, 0x100000


class ArenaMap(Map, types=(MapType.ARENA,)):
    """``BPF_MAP_TYPE_ARENA``: Linux 6.9, commit 317460317a02. `max_entries` is its size in pages.

    `memory` is all of it. A pointer that a program stored is also an address in this process: `view` and
    `read` take it. A page is created when a program or this process first touches it. With
    ``BPF_F_SEGV_ON_FAULT``, touching a page that no program allocated kills this process instead.
    """

    def __init__(self, fd: int, info: MapInfo, codecs: Codecs | None, **options: Any) -> None:
        self._mapping: _Mapping | None = None
        super().__init__(fd, info, codecs, **options)
        if info.id in _Mapping.known:
            self._mapped()  # shares the mapping: an arena can't be mapped at a second address

    @property
    def memory(self) -> memoryview:
        """The whole arena, writable. Raises `MapError` if another process has it at another address."""
        return self._mapped().view

    @property
    def address(self) -> int:
        """The address at which the arena begins, in this process and in programs' pointers."""
        return self._mapped().address

    def view(self, pointer: int, size: int) -> memoryview:
        """Returns the `size` bytes at a pointer. Raises `MapValueError` for one outside of the arena."""
        start = pointer - self.address
        if pointer and 0 <= start <= len(self.memory) - size:
            return self.memory[start : start + size]
        raise MapValueError(
            f"cannot read {size} bytes at {pointer:#x}",
            on=f"in {self}",
            why="the pointer is NULL" if not pointer else "the pointer does not point into it",
            fix=f"give a pointer from {self.address:#x} to {self.address + len(self.memory):#x}",
        )

    def read(self, pointer: int, type: str) -> Any:
        """Returns the C struct `type` at a pointer. Raises `NameLookupError` or `MapValueError`."""
        if self._codecs is None:
            raise NameLookupError("no struct", on=f"{type!r} for {self}", why="there are no types for it")
        codec = self._codecs.struct(type)
        return codec.decode(bytes(self.view(pointer, codec.size)))

    def close(self) -> None:
        """Unmaps the arena, with all its views, and closes the descriptor. Safe to call again."""
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            mapping.release()
        super().close()

    def _mapped(self) -> _Mapping:
        if self._mapping is None:
            fd = self.fd  # raises if the map is closed, even if another object shares its memory
            self._mapping = _Mapping.known.get(self.id) or _map(fd, self, self._info.map_extra)
            self._mapping.acquire()
        return self._mapping


class _Mapping:
    """An arena's memory in this process, shared by all its objects: the kernel allows only one address."""

    known: ClassVar[dict[int, _Mapping]] = {}  # by map id

    def __init__(self, map_id: int, address: int, size: int, *, owned: bool = True) -> None:
        self._id = map_id
        self._owned = owned
        self._users = 0
        self.address = address
        self.view = memoryview(ffi.buffer(ffi.cast("char *", address), size)).cast("B")
        self.known[map_id] = self

    def acquire(self) -> None:
        """Counts one more user, which has to call `release`."""
        self._users += 1

    def release(self) -> None:
        """Counts one user less, and unmaps the memory after the last one."""
        self._users -= 1
        if self._users:
            return
        del self.known[self._id]
        size = len(self.view)
        self.view.release()
        if self._owned:
            lib.munmap(ffi.cast("void *", self.address), size)


def _map(fd: int, arena: ArenaMap, wanted: int) -> _Mapping:
    """Maps the arena at the address `wanted` (``map_extra``); if that is 0, at any address.

    Programs that use it can only be loaded after that.
    """
    size = arena.max_entries * mmap.PAGESIZE
    flags = _MAP_SHARED | (_MAP_FIXED_NOREPLACE if wanted else 0)
    rights = mmap.PROT_READ | mmap.PROT_WRITE
    pointer = lib.mmap(ffi.cast("void *", wanted), size, rights, flags, fd, 0)
    number = ffi.errno
    address = int(ffi.cast("intptr_t", pointer))
    if address != -1:
        return _Mapping(arena.id, address, size)
    raise MapError(
        "cannot map the memory of",
        on=str(arena),
        why=reason(number),
        fix="make the arena with extra=ADDRESS: all processes must map it at the same address",
        errno=number,
    )


@contextmanager
def arenas_of(handles: Iterable[Any]) -> Iterator[None]:
    """Creates and maps the arenas among the maps of an object that is loaded in the ``with`` block.

    libbpf does this itself from 1.4 on (commit 79ff13e99169); then its mappings are used after the block.
    Raises `UnsupportedError` if the kernel has no arenas.
    """
    arenas = [h for h in handles if lib.bpf_map__type(h) == MapType.ARENA]
    if lib.libbpf_bpf_map_type_str(MapType.ARENA) != ffi.NULL:
        yield
        for handle in arenas:
            if lib.bpf_map__fd(handle) >= 0:  # libbpf has closed the maps of an object that did not load
                _adopt(handle)
        return
    with ExitStack() as stack:
        for handle in arenas:
            if lib.bpf_map__fd(handle) < 0:  # a map with a descriptor reuses a live map
                stack.enter_context(_make_arena(handle))
        yield


def _adopt(handle: Any) -> None:
    address = int(ffi.cast("uintptr_t", lib.bpf_map__initial_value(handle, ffi.new("size_t *"))))
    info = map_info(lib.bpf_map__fd(handle))
    if address and info.id not in _Mapping.known:
        _Mapping(info.id, address, info.max_entries * mmap.PAGESIZE, owned=False)


def _make_arena(handle: Any) -> ArenaMap:
    name = to_str(lib.bpf_map__name(handle))
    settings = opts(
        "bpf_map_create_opts",
        map_flags=lib.bpf_map__map_flags(handle),
        map_extra=lib.bpf_map__map_extra(handle),
    )
    entries = lib.bpf_map__max_entries(handle)
    fd = lib.bpf_map_create(MapType.ARENA, name.encode()[:15], 0, 0, entries, settings)
    what, on = "cannot create", f"map {name!r} (arena)"
    if fd == -errno.EINVAL and not probe("map_type", "arena"):
        why = came_with(f"Linux {release()} has no arenas", "map type arena")
        fix = 'mark the test bpf_requires("arena"), or choose another kernel: pytest --bpf-kernel=NAME'
        raise UnsupportedError(what, on=on, why=why, fix=fix, errno=-fd)
    fix = "put BPF_F_MMAPABLE into the map's flags"
    check(fd, UnsupportedError, what, on=on, fix=fix)
    arena = ArenaMap(fd, map_info(fd), None, name=name)
    try:
        arena.memory  # noqa: B018  maps it: the verifier needs its address
        check(lib.bpf_map__reuse_fd(handle, fd), MapError, "cannot use", on=str(arena))
    except BaseException:
        arena.close()
        raise
    return arena
