"""Arenas: memory that programs and a test share, pointers included."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.errors import MapError, MapValueError, NameLookupError, UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.libbpf import check, ffi, lib, opts, to_str
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.info import MapInfo, map_info

_MAP_SHARED, _MAP_FIXED_NOREPLACE = 0x01, 0x100000


class ArenaMap(Map, types=(MapType.ARENA,)):
    """``BPF_MAP_TYPE_ARENA``: Linux 6.9, commit 317460317a02. `max_entries` is its size in pages.

    `memory` is all of it. A pointer that a program stored is an address in this process: `view` and `read`
    take it. Pages come into being when they are first touched, here too, unless the arena was made with
    ``BPF_F_SEGV_ON_FAULT``: then touching a page that no program allocated kills this process.
    """

    def __init__(self, fd: int, info: MapInfo, codecs: Codecs | None, **options: Any) -> None:
        self._mapping: _Mapping | None = None
        super().__init__(fd, info, codecs, **options)
        if info.id in _Mapping.known:
            self._mapped()  # while it is there: it can't be mapped again somewhere else

    @property
    def memory(self) -> memoryview:
        """All of it, writable. Raises `MapError` when another process has it at another address."""
        return self._mapped().view

    @property
    def address(self) -> int:
        """Where it begins in this process, and so what programs' pointers begin with."""
        return self._mapped().address

    def view(self, pointer: int, size: int) -> memoryview:
        """The `size` bytes at a pointer that a program stored. Raises `MapValueError` for one outside."""
        start = pointer - self.address
        if pointer and 0 <= start <= len(self.memory) - size:
            return self.memory[start : start + size]
        raise MapValueError(
            f"cannot look at {size} bytes at {pointer:#x}",
            on=f"in {self}",
            why="the pointer is NULL" if not pointer else "the pointer does not point into it",
            fix=f"it spans {self.address:#x} to {self.address + len(self.memory):#x}",
        )

    def read(self, pointer: int, type: str) -> Any:
        """The C struct `type` at a pointer, as it is now. Raises `NameLookupError`, `MapValueError`."""
        if self._codecs is None:
            raise NameLookupError("no struct", on=f"{type!r} for {self}", why="there are no types for it")
        codec = self._codecs.struct(type)
        return codec.decode(bytes(self.view(pointer, codec.size)))

    def close(self) -> None:
        """Unmaps it, with all views of it, and closes the descriptor. Safe to call again."""
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            mapping.release()
        super().close()

    def _mapped(self) -> _Mapping:
        if self._mapping is None:
            fd = self.fd  # a closed map has no memory, though another may share it
            self._mapping = _Mapping.known.get(self.id) or _map(fd, self, self._info.map_extra)
            self._mapping.acquire()
        return self._mapping


class _Mapping:
    """An arena's memory in this process: one for all who look at it, as the kernel allows one address."""

    known: ClassVar[dict[int, _Mapping]] = {}  # by map id

    def __init__(self, map_id: int, address: int, size: int, *, owned: bool = True) -> None:
        self._id = map_id
        self._owned = owned
        self._users = 0
        self.address = address
        self.view = memoryview(ffi.buffer(ffi.cast("char *", address), size)).cast("B")
        self.known[map_id] = self

    def acquire(self) -> None:
        """It has one more user, who calls `release` when done."""
        self._users += 1

    def release(self) -> None:
        """Unmaps the memory when this was its last user."""
        self._users -= 1
        if self._users:
            return
        del self.known[self._id]
        size = len(self.view)
        self.view.release()
        if self._owned:
            lib.munmap(ffi.cast("void *", self.address), size)


def _map(fd: int, arena: ArenaMap, wanted: int) -> _Mapping:
    """Maps it at the address that is `wanted` (``map_extra``), else where there is room.

    Programs can be loaded only after that.
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
        fix="another process mapped it first: all must use the same address, so make it with extra=ADDRESS",
        errno=number,
    )


@contextmanager
def arenas_of(handles: Iterable[Any]) -> Iterator[None]:
    """Creates and maps the arenas among the maps of an object that is loaded in the block.

    libbpf does so itself from 1.4 on (commit 79ff13e99169); then its mappings are taken over after the block.
    Raises `UnsupportedError` when the kernel has no arenas.
    """
    arenas = [h for h in handles if lib.bpf_map__type(h) == MapType.ARENA]
    if lib.libbpf_bpf_map_type_str(MapType.ARENA) != ffi.NULL:
        yield
        for handle in arenas:
            _adopt(handle)
        return
    with ExitStack() as stack:
        for handle in arenas:
            if lib.bpf_map__fd(handle) < 0:  # otherwise it takes a live map's place
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
    fix = "arenas need Linux 6.9 or later, and BPF_F_MMAPABLE among the map's flags"
    check(fd, UnsupportedError, what, on=on, fix=fix)
    arena = ArenaMap(fd, map_info(fd), None, name=name)
    try:
        arena.memory  # noqa: B018  the verifier wants to know its address
        check(lib.bpf_map__reuse_fd(handle, fd), MapError, "cannot use", on=str(arena))
    except BaseException:
        arena.close()
        raise
    return arena
