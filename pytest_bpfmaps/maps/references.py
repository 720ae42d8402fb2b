"""Maps whose values are kernel objects: these are written as descriptors, and read as ids."""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NoReturn

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.btf.codec import IntCodec
from pytest_bpfmaps.errors import MapError, MapTypeError
from pytest_bpfmaps.kernel.map_flags import BPF_ANY
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.maps.file_descriptors import closing, describe, descriptor_of
from pytest_bpfmaps.maps.flags import flags_of
from pytest_bpfmaps.maps.info import MapInfo
from pytest_bpfmaps.maps.sparse import SparseMap


class Reference(int):
    """The kernel's number for an object that a map holds; it also equals that object."""

    noun: ClassVar[str] = "number"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return int(self) == int(other)
        return self.number_of(other) == int(self)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def number_of(self, other: Any) -> int | None:
        """Returns the same kind of number of another object; None if it has none."""
        return None

    def open(self) -> int | None:
        """Returns a new descriptor of the object; None if the kernel gives none for its number."""
        return None

    def __repr__(self) -> str:
        return f"<{self.noun} {int(self)}>"

    __str__ = __repr__


class ReferenceMap(SparseMap):
    """A map that holds programs, sockets, maps or cgroups.

    Writing takes an object with a descriptor, or the descriptor itself. The kernel keeps its own reference,
    so the object may be closed afterwards.
    """

    wanted: ClassVar[str]  # the kind of its values, with an article
    kind: ClassVar[str] = ""  # what /proc/self/fd shows for their descriptors
    explain: ClassVar[dict[int, tuple[str, str]]] = {}  # errno: (why it is refused, what to do)
    reference: ClassVar[type[Reference]] = Reference

    def __init__(self, fd: int, info: MapInfo, codecs: Codecs | None, **options: Any) -> None:
        super().__init__(fd, info, codecs, **options)
        self._value = IntCodec(f"descriptor of {self.wanted}", info.value_size, signed=False)

    def update_elem(self, key: Any, value: Any, flags: int = BPF_ANY) -> None:
        """Puts `value` under `key`.

        Raises `MapTypeError` for a value that the map can't hold, and `MapError` with errno.
        """
        raw, flags = self._encode_key(key), flags_of(flags)
        with self._as_descriptor(value) as fd:
            descriptor = self._value.encode(fd, self._value_where)
            result = lib.bpf_map_update_elem(
                self.fd, ffi.from_buffer(raw), ffi.from_buffer(descriptor), flags
            )
            if result < 0:
                self._refuse_value(-result, key, value, fd, flags)

    def _as_descriptor(self, value: Any) -> AbstractContextManager[int]:
        """Returns a context manager with a descriptor, which is open until the ``with`` block ends."""
        own = value.open() if isinstance(value, Reference) else None
        fd = own if isinstance(value, Reference) else descriptor_of(value)
        if fd is not None:
            return nullcontext(fd) if own is None else closing(fd)
        raise MapTypeError(
            f"cannot put {value!r}",
            on=f"into {self}",
            why=f"it is {type(value).__name__}, not {self.wanted}",
            fix=f"give {self.wanted}, or a descriptor of one",
        )

    def _refuse_value(self, number: int, key: Any, value: Any, fd: int, flags: int) -> NoReturn:
        what, on, is_what = f"cannot put {value!r}", f"into {self} at {key!r}", describe(fd)
        if number == errno.EBADF or self.kind not in is_what:
            why = f"{is_what}, not {self.wanted} ({reason(number)})"
            raise MapTypeError(what, on=on, why=why, fix=f"give {self.wanted}", errno=number)
        if number in self.explain and not flags:
            because, fix = self.explain[number]
            raise MapError(what, on=on, why=f"{because} ({reason(number)})", fix=fix, errno=number)
        self._refuse(number, "update", key, flags)

    def _decode_value(self, raw: bytes | bytearray | memoryview) -> Any:
        return self.reference(self._value.decode(raw))
