"""The base of all maps: a descriptor, attributes, pins, and operations on typed keys and values."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.btf.listed_keys import Listed
from pytest_bpfmaps.errors import (
    ENOTSUPP,
    ClosedError,
    MapError,
    MapKeyError,
    MapTypeError,
    NameLookupError,
    UnsupportedError,
    closest,
)
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.map_flags import BPF_ANY
from pytest_bpfmaps.kernel.open_resources import forget, forget_pin, note, note_pin
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.libbpf import check, ffi, lib
from pytest_bpfmaps.maps.element_errors import explain_refused_element, missing_key
from pytest_bpfmaps.maps.elements import Elements
from pytest_bpfmaps.maps.flags import flags_of
from pytest_bpfmaps.maps.info import MapInfo, codecs_for
from pytest_bpfmaps.maps.pins import Pins, pin_remedy, unpin

_FEW = 6  # types that a message names


class Map:
    """A map in the kernel.

    With `owned`, `fd` belongs to this object; otherwise it belongs to the loaded object with the map.
    `codecs` has the types of the BTF that `info` refers to. `pins` are the pins of the test, and `pinned` has
    the paths where the map is pinned already.

    A class names its map types: ``class QueueMap(Map, types=(MapType.QUEUE,))``. This class is for the types
    that no other class names.
    """

    classes: ClassVar[dict[int, type[Map]]] = {}
    """The class of each map type."""

    _fd = -1  # until the constructor has set it

    def __init_subclass__(cls, *, types: Iterable[MapType] = ()) -> None:
        Map.classes.update(dict.fromkeys(types, cls))

    def __init__(
        self,
        fd: int,
        info: MapInfo,
        codecs: Codecs | None,
        *,
        name: str | None = None,
        owned: bool = True,
        pins: Pins | None = None,
        pinned: Iterable[str] = (),
    ) -> None:
        key, value = codecs_for(info, codecs)
        self._fd = fd
        self._owned = owned
        self._info = info
        self._codecs = codecs
        self._key = key
        self._value = value
        self._value_bytes = value.size
        self.name = name or info.name
        self._key_where = f"map {self.name!r} key"
        self._value_where = f"map {self.name!r} value"
        self._pins = pins
        self._pinned = list(pinned)
        if owned:
            note(str(self), [fd], owner=self)

    # attributes

    @property
    def fd(self) -> int:
        """The map's descriptor. Raises `ClosedError` after `close`."""
        if self._fd < 0:
            raise ClosedError(
                "cannot use",
                on=f"map {self.name!r}",
                why="it is closed",
                fix="keep its object open while you read",
            )
        return self._fd

    @property
    def type(self) -> MapType | int:
        """Its ``enum bpf_map_type``."""
        return self._info.type

    @property
    def id(self) -> int:
        """The kernel's id of the map, as ``bpftool map list`` shows it."""
        return self._info.id

    @property
    def key_size(self) -> int:
        """The size of a key in bytes."""
        return self._info.key_size

    @property
    def value_size(self) -> int:
        """The size of a value in bytes; for a per-CPU map, the size of one CPU's value."""
        return self._info.value_size

    @property
    def max_entries(self) -> int:
        """How many elements it can hold; for a ring buffer, its size in bytes."""
        return self._info.max_entries

    @property
    def flags(self) -> int:
        """The flags ``BPF_F_*`` that it was created with."""
        return self._info.flags

    if not TYPE_CHECKING:  # so that type checkers still report a wrong name

        def __getattr__(self, name: str) -> Any:
            """Raises `NameLookupError`, which names the map types that have the attribute."""
            if name.startswith("_"):
                raise AttributeError(name)
            found = getattr(type(self), name, None)
            if isinstance(found, property):  # it raised an AttributeError of its own
                return found.__get__(self)
            raise self._no_attribute(name)

        # Python's own messages name neither the map nor what it has instead; list() and `in` call these, too

        def __getitem__(self, key: Any) -> Any:
            raise self._no_elements("cannot read elements of")

        def __setitem__(self, key: Any, value: Any) -> None:
            raise self._no_elements("cannot write elements of")

        def __delitem__(self, key: Any) -> None:
            raise self._no_elements("cannot delete elements of")

    def _no_elements(self, what: str) -> MapTypeError:
        own = sorted(n for n in {*dir(type(self))} - {*dir(Map)} if not n.startswith("_"))
        return MapTypeError(
            what,
            on=str(self),
            why="maps of this type have no elements by key",
            fix=f"use one of these: {', '.join(own or ('lookup_elem', 'update_elem', 'delete_elem'))}",
        )

    def _no_attribute(self, name: str) -> NameLookupError:
        having = sorted(str(MapType.from_number(n)) for n, each in Map.classes.items() if hasattr(each, name))
        own = [n for n in dir(type(self)) if not n.startswith("_") and n not in ("classes", "compared")]
        types = ", ".join(having[:_FEW]) + (", …" if len(having) > _FEW else "")
        return NameLookupError(
            f"no {name!r}",
            on=f"in map {self.name!r}",
            why=f"it is of type {self.type}" + (f"; maps of type {types} have that" if having else ""),
            fix=f"use one of these: {', '.join(own)}" if having else closest(name, own),
        )

    # the kernel's operations

    def lookup_elem(self, key: Any, flags: int = 0) -> Any:
        """Returns the value of `key`.

        Raises `MapKeyError` if it is missing. ``BPF_MAP_LOOKUP_ELEM``, bpf(2).
        """
        raw = self._encode_key(key)
        value = self._lookup_raw(raw, flags)
        return self._decode_value(value)

    def update_elem(self, key: Any, value: Any, flags: int = BPF_ANY) -> None:
        """Writes `value` under `key`.

        `flags` is `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`, or'ed with `BPF_F_LOCK`.

        Raises `MapError` with `errno`: `EEXIST`, `E2BIG` if the map is full, `EPERM` if it is frozen. Raises
        `MapKeyError` for `BPF_EXIST` on a missing key. Raises `MapTypeError`, `MapOverflowError` or
        `MapValueError` for a value that the C type can't hold. ``BPF_MAP_UPDATE_ELEM``, bpf(2).
        """
        flags = flags_of(flags)
        result = lib.bpf_map_update_elem(
            self.fd, ffi.from_buffer(self._encode_key(key)), ffi.from_buffer(self._encode_value(value)), flags
        )
        if result < 0:
            self._refuse(-result, "update", key, flags)

    def delete_elem(self, key: Any) -> None:
        """Removes `key`. Raises `MapKeyError` if it is missing. ``BPF_MAP_DELETE_ELEM``, bpf(2)."""
        self._delete_raw(self._encode_key(key))

    def get_next_key(self, key: Any = None) -> Any:
        """Returns the key after `key`, or the first key for None. Raises `MapKeyError` after the last key.

        If `key` is no longer in a hash map, the kernel returns the first key. ``BPF_MAP_GET_NEXT_KEY``,
        bpf(2).
        """
        found = self._next_raw_key(None if key is None else self._encode_key(key))
        if found is None:
            raise MapKeyError(
                "no key after", on=f"{key!r} in map {self.name!r} ({self.type})", errno=errno.ENOENT
            )
        return self._key.listed(found)

    def lookup_and_delete_elem(self, key: Any) -> Any:
        """Removes `key`, and returns its value, in one step.

        Hash maps need Linux 5.14, commit 3e87f192b405; older kernels raise `UnsupportedError`. Queues and
        stacks need Linux 4.20.
        """
        out = bytearray(self._value_bytes)
        result = lib.bpf_map_lookup_and_delete_elem(
            self.fd, ffi.from_buffer(self._encode_key(key)), ffi.from_buffer(out)
        )
        if -result == ENOTSUPP:
            raise UnsupportedError(
                f"cannot look up and delete {key!r}",
                on=f"in {self}",
                why=f"Linux {release()} can't do it in one step for this type (hash maps: since 5.14)",
                fix="look it up, then delete it: value = m[key]; del m[key]",
                errno=ENOTSUPP,
            )
        if result < 0:
            self._refuse(-result, "look up and delete", key)
        return self._decode_value(out)

    def freeze(self) -> None:
        """Makes the map read-only for user space, which can't be undone. Raises `MapError` with errno.

        ``BPF_MAP_FREEZE``, Linux 5.2, commit 87df15de441b.
        """
        check(lib.bpf_map_freeze(self.fd), MapError, "cannot freeze", on=str(self))

    # pins

    def pin(self, path: str | os.PathLike[str] | None = None) -> None:
        """Gives the map a name in a bpf file system, which keeps it alive when no process has it open.

        A relative `path` (default: the map's name) is below the test's own folder, `Bpf.pin_root`. If the map
        came from the fixture `bpf`, the teardown removes the pin. Raises `MapError` with errno: `EEXIST` if
        the name exists, `EPERM` if the folder is not in a bpf file system. ``BPF_OBJ_PIN``, Linux 4.4, commit
        b2197755b263.
        """
        where = os.fspath(path or self.name)
        if self._pins is not None:
            where = self._pins.place(where)
        check(
            lib.bpf_obj_pin(self.fd, os.fsencode(where)),
            MapError,
            f"cannot pin map {self.name!r}",
            on=f"at {where}",
            fix=pin_remedy(where),
        )
        self._pinned.append(where)
        if self._pins is not None:
            self._pins.add(where)
        else:
            note_pin(where, f"pin {where} of {self}")

    def unpin(self, path: str | os.PathLike[str] | None = None) -> None:
        """Removes the pin at `path`; without a path, every pin in `pins`.

        Raises `MapError` (`ENOENT`) if there is none.
        """
        if path is None:
            paths, self._pinned = self._pinned, []
        else:
            where = os.fspath(path)
            paths = [self._pins.path(where) if self._pins is not None else where]
            self._pinned = [p for p in self._pinned if p not in paths]
        if not paths:
            raise MapError(f"cannot unpin {self}", why="it has no known pin", errno=errno.ENOENT)
        for each in paths:
            forget_pin(each)
            unpin(each, str(self))

    @property
    def pins(self) -> tuple[str, ...]:
        """The paths where this object pinned the map, or found it pinned."""
        return tuple(self._pinned)

    def __eq__(self, other: object) -> bool:
        """Returns whether both objects are the same map in the kernel.

        Raises `MapTypeError` for a list, a set or a mapping: the kernel does not list the map's values.
        """
        if isinstance(other, Collection) and not isinstance(other, str | bytes | Map):
            raise self._no_elements(f"cannot compare {type(other).__name__} with")
        return self.id == other.id if isinstance(other, Map) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def close(self) -> None:
        """Closes the descriptor if it belongs to this object. Safe to call again."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and self._owned:
            forget(fd)
            os.close(fd)

    def __del__(self) -> None:
        # nobody else closes an inner map that was only read once, `outer[k][i]`
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<map {self.name!r} ({self.type}), {self._key.name} -> {self._value.name}>"

    def __str__(self) -> str:
        return f"map {self.name!r} ({self.type})"

    # for subclasses

    def _encode_key(self, key: Any) -> bytes:
        if isinstance(key, Listed) and len(key.__raw__) == self.key_size:
            return key.__raw__
        return self._key.encode(key, self._key_where)

    def _encode_value(self, value: Any) -> bytes:
        return self._value.encode(value, self._value_where)

    def _decode_value(self, raw: bytes | bytearray | memoryview) -> Any:
        return self._value.decode(raw)

    def _delete_raw(self, key: bytes) -> None:
        result = lib.bpf_map_delete_elem(self.fd, ffi.from_buffer(key))
        if result < 0:
            self._refuse(-result, "delete", self._key.listed(key))

    def _lookup_raw(self, key: bytes, flags: int = 0) -> bytearray:
        out = bytearray(self._value_bytes)
        fd, key_at, value_at = self.fd, ffi.from_buffer(key), ffi.from_buffer(out)
        if flags:
            result = lib.bpf_map_lookup_elem_flags(fd, key_at, value_at, flags_of(flags))
        else:
            result = lib.bpf_map_lookup_elem(fd, key_at, value_at)
        if result < 0:
            self._refuse(-result, "look up", self._key.listed(key), flags)
        return out

    def _read_memory(self) -> Elements | None:
        """Returns all elements if the kernel lets them be mapped into memory; else None."""
        return None

    def _next_raw_key(self, key: bytes | None) -> bytes | None:
        out = bytearray(self.key_size)
        before = ffi.NULL if key is None else ffi.from_buffer(key)
        result = lib.bpf_map_get_next_key(self.fd, before, ffi.from_buffer(out))
        if result == -errno.ENOENT:
            return None
        check(result, MapError, "cannot list the keys of", on=str(self))
        return bytes(out)

    def _refuse(self, number: int, verb: str, key: Any, flags: int = 0) -> NoReturn:
        """Raises the exception for the kernel's error number."""
        what, on = f"cannot {verb} {key!r}", f"in {self}"
        if number == errno.ENOENT:
            raise missing_key(key, on, *self._explain_missing(key))
        why, fix = explain_refused_element(number, self.name, self._info, flags)
        raise MapError(what, on=on, why=why, fix=fix, errno=number)

    def _explain_missing(self, key: Any) -> tuple[str | None, str | None]:
        """Returns why a key is missing, and what to do."""
        return None, None
