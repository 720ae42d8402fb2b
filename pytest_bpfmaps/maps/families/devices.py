"""Maps of the targets to which XDP programs send packets: network interfaces and CPUs."""

from __future__ import annotations

import errno
import socket
from typing import Any, ClassVar, NoReturn

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.btf.codec import IntCodec
from pytest_bpfmaps.btf.field import Field
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.errors import Explanation, MapError, MapTypeError, MapValueError, closest
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.maps.file_descriptors import descriptor_of
from pytest_bpfmaps.maps.info import MapInfo
from pytest_bpfmaps.maps.sparse import SparseMap

_U32 = IntCodec("__u32", 4, signed=False)
_S32 = IntCodec("int", 4, signed=True)
_PROGRAM = StructCodec(
    "union", 4, [Field("fd", _S32, 0, choice=((1, 0),)), Field("id", _U32, 0, choice=((1, 1),))]
)


class RedirectMap(SparseMap):
    """A number for each target; if the value has 8 bytes, also a program that runs there.

    Writing takes the number, ``(number, program)``, or the fields of the C struct. Reading gives the number,
    or a record of 8 bytes in which ``bpf_prog.id`` is the program's id (0: none).
    """

    struct: ClassVar[str]
    number: ClassVar[str]  # the struct's first field
    program_section: ClassVar[str]

    def __init__(self, fd: int, info: MapInfo, codecs: Codecs | None, **options: Any) -> None:
        super().__init__(fd, info, codecs, **options)
        if info.value_size == 4:
            self._value = _U32
        elif not isinstance(self._value, StructCodec):
            fields = [Field(self.number, _U32, 0), Field("bpf_prog", _PROGRAM, 4)]
            self._value = StructCodec(f"struct {self.struct}", 8, fields)

    def delete_elem(self, key: Any) -> None:
        """Empties a slot. Raises `MapKeyError` for an empty slot."""
        self.lookup_elem(key)  # for an empty slot the kernel's delete succeeds, too
        super().delete_elem(key)

    def _encode_value(self, value: Any) -> bytes:
        program = None
        if isinstance(value, tuple) and len(value) == 2:
            value, program = value
        if isinstance(value, int | str):
            number = self._to_number(value)
            if self.value_size == 4 and program is None:
                return self._value.encode(number, self._value_where)
            return self._with_program(number, program)
        return super()._encode_value(value)

    def _to_number(self, value: int | str) -> int:
        raise NotImplementedError

    def _with_program(self, number: int, program: Any) -> bytes:
        fd = 0 if program is None else descriptor_of(program)
        if self.value_size == 4 or fd is None:
            why = "its value is only a number" if self.value_size == 4 else f"{program!r} is not a program"
            raise MapTypeError(
                f"cannot store a program with {number}",
                on=f"in {self._value_where}",
                why=why,
                fix=f"declare __type(value, struct {self.struct}), and give (number, program)",
            )
        return _U32.encode(number, self._value_where) + _S32.encode(fd, self._value_where)

    def _refuse(self, number: int, verb: str, key: Any, flags: int = 0) -> NoReturn:
        found = self._why(number)
        if verb != "update" or flags or found is None:
            super()._refuse(number, verb, key, flags)
        why, fix = found
        raise MapError(
            f"cannot update {key!r}", on=f"in {self}", why=f"{why} ({reason(number)})", fix=fix, errno=number
        )

    def _why(self, number: int) -> Explanation | None:
        if number in (errno.EBADF, errno.EINVAL):
            return Explanation(
                "its program is not an XDP program for this kind of map",
                _made_for(self.program_section),
            )
        return None


def _made_for(section: str) -> str:
    return f'give a program with SEC("{section}") that is not attached elsewhere'


class DevMap(RedirectMap, types=(MapType.DEVMAP, MapType.DEVMAP_HASH)):
    """``BPF_MAP_TYPE_DEVMAP`` and ``BPF_MAP_TYPE_DEVMAP_HASH``.

    Linux 4.14, commit 546ac1ffb70d, and 5.4, commit 6f9d451ab1a3;
    https://docs.kernel.org/bpf/map_devmap.html. Values are interfaces of this network namespace, given by
    index or name; they are read as an index. A value with a program needs Linux 5.8, commit fbee97feed9b.
    """

    struct = "bpf_devmap_val"
    number = "ifindex"
    program_section = "xdp/devmap"

    def _to_number(self, value: int | str) -> int:
        if isinstance(value, int):
            return value
        try:
            return socket.if_nametoindex(value)
        except OSError as e:
            raise MapValueError(
                f"cannot store {value!r}",
                on=f"in {self._value_where}",
                why="there is no interface of that name in this network namespace",
                fix=closest(value, (name for _, name in socket.if_nameindex())),
                errno=errno.ENODEV,
            ) from e

    def _why(self, number: int) -> Explanation | None:
        if number == errno.EINVAL:
            return Explanation(
                "this namespace has no interface with that index, or its program is not for this kind of map",
                f'look at socket.if_nameindex(); give a program with SEC("{self.program_section}")',
            )
        return super()._why(number)


class CpuMap(RedirectMap, types=(MapType.CPUMAP,)):
    """``BPF_MAP_TYPE_CPUMAP``: Linux 4.15, commit 6710e1126934. Keys are CPUs, values queue sizes in packets.

    https://docs.kernel.org/bpf/map_cpumap.html. A value with a program needs Linux 5.9, commit 9216477449f3.
    """

    struct = "bpf_cpumap_val"
    number = "qsize"
    program_section = "xdp/cpumap"

    def _to_number(self, value: int | str) -> int:
        if isinstance(value, int):
            return value
        raise MapTypeError(
            f"cannot store {value!r}", on=f"in {self._value_where}", why="a queue size is an int"
        )

    def _why(self, number: int) -> Explanation | None:
        if number == errno.ENODEV:
            return Explanation(
                "this machine can't have a CPU with that number", "look at /sys/devices/system/cpu/possible"
            )
        if number == errno.EOVERFLOW:
            return Explanation("a queue holds at most 16384 packets", "give a smaller queue size")
        if number == errno.ENOMEM:  # the kernel also gives this error for a program that it can't run there
            return Explanation(
                "there is no memory for the queue, or its program is not for this kind of map",
                _made_for(self.program_section),
            )
        return super()._why(number)
