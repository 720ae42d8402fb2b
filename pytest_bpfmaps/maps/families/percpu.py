"""Per-CPU maps: an element has one value for each possible CPU."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from pytest_bpfmaps.btf import Codec, Codecs, Record
from pytest_bpfmaps.btf.array_codecs import ArrayCodec, BytesCodec
from pytest_bpfmaps.btf.codec import short
from pytest_bpfmaps.btf.enumerator import equal_with_hash
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.errors import MapError, MapTypeError, MapValueError, UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.cpus import possible_cpus
from pytest_bpfmaps.kernel.map_flags import BPF_ANY, BPF_F_ALL_CPUS, BPF_F_CPU
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.maps.families.array import ArrayMap
from pytest_bpfmaps.maps.families.hash import HashMap
from pytest_bpfmaps.maps.flags import flags_of
from pytest_bpfmaps.maps.info import MapInfo
from pytest_bpfmaps.maps.snapshot import Snapshot


class PerCpu(tuple[Any, ...]):
    """The values of one element; the index is the CPU. It equals a list or tuple of the same values.

    A write of ``PerCpu([…])`` always means one value for each CPU.
    """

    __slots__ = ()

    def sum(self) -> Any:
        """Returns the total over all CPUs; for structs, a dict with the total of each numeric field."""
        return combine(self, sum)

    def max(self) -> Any:
        """Returns the largest value; for structs, of each field."""
        return combine(self, max)

    def min(self) -> Any:
        """Returns the smallest value; for structs, of each field."""
        return combine(self, min)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, tuple):  # equal tuples must have equal hashes
            return len(self) == len(other) and all(map(equal_with_hash, self, other))
        return tuple.__eq__(self, tuple(other) if isinstance(other, list) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__


def combine(values: tuple[Any, ...], how: Callable[[Iterable[Any]], Any]) -> Any:
    """Returns `how` of numbers, or of each numeric field of records, or of each index of lists.

    Raises `MapTypeError` for the sum of texts or bytes.
    """
    first = values[0]
    if isinstance(first, Record):
        names = [n for n in first.__codec__.by_name if _is_numeric(first[n])]
        return {n: combine(tuple(v[n] for v in values), how) for n in names}
    if isinstance(first, list):
        return [combine(column, how) for column in zip(*values, strict=True)]
    if how is sum and not _is_numeric(first):
        raise MapTypeError(
            "cannot add up",
            on=f"{short(first)} and the values of other CPUs",
            why=f"it is {type(first).__name__}, not a number",
            fix="look at the value of each CPU: m[key][cpu]",
        )
    return how(values)


def _is_numeric(value: Any) -> bool:
    """Whether a value is a number, a record, or a list of such values at any depth."""
    return (
        all(map(_is_numeric, value)) if isinstance(value, list) else isinstance(value, int | float | Record)
    )


class PerCpuHashMap(HashMap, types=(MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH)):
    """``BPF_MAP_TYPE_PERCPU_HASH``, ``BPF_MAP_TYPE_LRU_PERCPU_HASH``.

    `m[key]` is a `PerCpu`. Writing takes one value for all CPUs, or a `PerCpu` or list with a value for each.
    If a value is itself given as a list, a list with a value for each CPU is nested one level deeper.
    """

    def __init__(self, fd: int, info: MapInfo, codecs: Codecs | None, **options: Any) -> None:
        super().__init__(fd, info, codecs, **options)
        # the kernel aligns each CPU's value to 8 bytes, so it writes more than value_size for each
        self._stride = (self._value.size + 7) & ~7
        self._value_bytes = self._stride * possible_cpus()

    def lookup_elem(self, key: Any, flags: int = 0) -> Any:
        """Returns the values of `key`, one for each CPU; with ``cpu << 32 | BPF_F_CPU`` that CPU's value.

        Raises `MapKeyError` if the key is missing, and `UnsupportedError` for a flag that the kernel does not
        have (Linux 6.19).
        """
        if not flags or not flags_of(flags) & BPF_F_CPU:
            return super().lookup_elem(key, flags)
        return self._value.decode(self._lookup_raw(self._encode_key(key), flags))

    def update_elem(self, key: Any, value: Any, flags: int = BPF_ANY) -> None:
        """Writes one value for all CPUs, or a list with a value for each.

        With ``cpu << 32 | BPF_F_CPU`` it writes one value for that CPU, with `BPF_F_ALL_CPUS` one for all. It
        raises what `Map.update_elem` raises, and `UnsupportedError` for a flag that the kernel does not have
        (Linux 6.19).
        """
        if not flags_of(flags) & (BPF_F_CPU | BPF_F_ALL_CPUS):
            super().update_elem(key, value, flags)
            return
        raw = self._value.encode(value, self._value_where).ljust(self._stride, b"\0")
        result = lib.bpf_map_update_elem(
            self.fd, ffi.from_buffer(self._encode_key(key)), ffi.from_buffer(raw), flags
        )
        if result < 0:
            self._refuse(-result, "update", key, flags)

    def _refuse(self, number: int, verb: str, key: Any, flags: int = 0) -> NoReturn:
        if number == errno.ERANGE and flags & BPF_F_CPU:
            why = f"there is no CPU {flags >> 32}: this kernel has {possible_cpus()} possible CPUs"
            raise MapError(f"cannot {verb} {key!r}", on=f"in {self}", why=why, errno=number)
        if number == errno.EINVAL and flags & (BPF_F_CPU | BPF_F_ALL_CPUS):
            raise UnsupportedError(
                f"cannot {verb} {key!r}",
                on=f"in {self}",
                why=f"Linux {release()} does not take {_names(flags)} there (they came with 6.19)",
                fix="read or write the values of all CPUs: m[key][cpu], m[key] = [one for each CPU]",
                errno=number,
            )
        super()._refuse(number, verb, key, flags)

    def sum(self) -> Snapshot:
        """Returns ``{key: total over all CPUs}``."""
        return self.snapshot().mapped(PerCpu.sum, f"the sum over all CPUs of {self}")

    def _decode_value(self, raw: bytes | bytearray | memoryview) -> Any:
        decode, step = self._value.decode, self._stride
        return PerCpu(decode(raw, at) for at in range(0, self._value_bytes, step))

    def _decode_values(self, raw: bytes, count: int) -> list[Any]:
        size = self._value_bytes
        return [self._decode_value(raw[i * size : (i + 1) * size]) for i in range(count)]

    def _encode_values(self, values: list[Any]) -> bytes:
        return b"".join([self._encode_value(v) for v in values])

    def _compared_value(self) -> ArrayCodec:
        return ArrayCodec(self._value.name, self._value, possible_cpus())

    def _lanes(self) -> tuple[int, int]:
        return possible_cpus(), self._stride

    def _encode_value(self, value: Any) -> bytes:
        if isinstance(value, PerCpu) or not isinstance(value, list | tuple):
            return self._encode_each(value) if isinstance(value, PerCpu) else self._encode_one(value)
        if not isinstance(self._value, StructCodec | ArrayCodec) and not _is_byte_array(self._value):
            return self._encode_each(value)
        return self._encode_either(value)

    def _encode_either(self, value: list[Any] | tuple[Any, ...]) -> bytes:
        """Encodes a list for a type whose value is a list: as one value, or as a value for each CPU."""
        ways = [self._encode_one, self._encode_each]
        is_likely_many = len(value) == possible_cpus() or isinstance(self._value, StructCodec)
        if isinstance(value, list) and is_likely_many:
            ways.reverse()  # if both fail, the error of the first is raised
        try:
            return ways[0](value)
        except MapError:
            try:
                return ways[1](value)
            except MapError:
                pass
            raise

    def _encode_one(self, value: Any) -> bytes:
        """Encodes the same value for all CPUs."""
        padding = bytes(self._stride - self._value.size)
        return (self._value.encode(value, self._value_where) + padding) * possible_cpus()

    def _encode_each(self, value: Sequence[Any]) -> bytes:
        """Encodes a value for each CPU."""
        if len(value) != possible_cpus():
            raise MapValueError(
                f"cannot store {len(value)} values",
                on=f"in {self._value_where}",
                why=f"this kernel has {possible_cpus()} possible CPUs",
                fix="give one value for all CPUs, or a list with one for each",
            )
        padding = bytes(self._stride - self._value.size)
        return b"".join(
            self._value.encode(v, f"{self._value_where} of CPU {cpu}") + padding
            for cpu, v in enumerate(value)
        )


def _is_byte_array(codec: Codec) -> bool:
    return isinstance(codec, BytesCodec) and codec.filled


def _names(flags: int) -> str:
    known = {"BPF_F_CPU": BPF_F_CPU, "BPF_F_ALL_CPUS": BPF_F_ALL_CPUS}
    return " with ".join(name for name, flag in known.items() if flags & flag)


class PerCpuArrayMap(PerCpuHashMap, ArrayMap, types=(MapType.PERCPU_ARRAY,)):
    """``BPF_MAP_TYPE_PERCPU_ARRAY``: a `PerCpu` for every index."""
