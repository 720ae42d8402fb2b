"""Creates maps without an object: ``BPF_MAP_CREATE``, with types from C text."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.compiler import Compiler
from pytest_bpfmaps.errors import (
    MapError,
    MapOverflowError,
    MapTypeError,
    MapValueError,
    NameLookupError,
    UnsupportedError,
    closest,
)
from pytest_bpfmaps.kernel.bpf_types import OF_MAPS, MapType
from pytest_bpfmaps.kernel.btf import parse_codecs
from pytest_bpfmaps.kernel.cpus import possible_cpus
from pytest_bpfmaps.kernel.features import probe
from pytest_bpfmaps.libbpf import capture_log, ffi, lib, opts
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.c_types import Types, compile_types
from pytest_bpfmaps.maps.classes import make_map
from pytest_bpfmaps.maps.create_errors import Attributes, explain_refused_map
from pytest_bpfmaps.maps.flags import flags_of
from pytest_bpfmaps.maps.info import map_info, untyped_info
from pytest_bpfmaps.maps.pins import Pins
from pytest_bpfmaps.maps.type_rules import ANY, TypeRules, shape_of

CType = str | int | None
"""A C type as text, or a size in bytes."""

_NAME = re.compile(r"[A-Za-z0-9_.]+")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.]")
_KERNEL_NAME = 15
_EMPTY = Types(b"", {})


@dataclass(frozen=True, slots=True)
class _Request:
    """The attributes of a map to create; sizes are in bytes."""

    type: MapType
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    extra: int
    inner_fd: int
    types: Types

    def __str__(self) -> str:
        return f"map {self.name!r} ({self.type})"


def create_map(
    compiler: Compiler,
    type: str | MapType,
    *,
    key: CType = None,
    value: CType = None,
    max_entries: int | None = None,
    flags: int = 0,
    name: str | None = None,
    inner: Map | Mapping[str, Any] | None = None,
    extra: int = 0,
    pins: Pins | None = None,
) -> Map:
    """Creates a map; see `pytest_bpfmaps.harness.Bpf.create_map`."""
    kind = _kind(type)
    name = _checked_name(name, kind)
    on, shape = f"map {name!r} ({kind})", shape_of(kind)
    if key is None and isinstance(value, str):
        key = shape.key_type
    texts = {n: t for n, t in (("key", key), ("value", value)) if isinstance(t, str)}
    types = compile_types(compiler, texts, on) if texts else _EMPTY
    codecs = parse_codecs(types.btf) if texts else None
    flags, extra = flags_of(flags), _number("extra", extra, 64, on)
    entries = _entries(kind, shape, max_entries, on)
    key_size = _size("key", key, shape.key, types, codecs, on)
    value_size = shape.value
    if not shape.records:
        value_size = _size("value", value, shape.value, types, codecs, on)
    with _model(compiler, kind, inner, on) as model:
        inner_fd = 0 if model is None else model.fd
        sizes = (key_size, value_size, entries)
        fd = _create(_Request(kind, name, *sizes, flags | shape.flags, extra, inner_fd, types))
        inner_info = None if model is None else untyped_info(model.fd)
    info = replace(
        map_info(fd),
        btf_key_type_id=types.ids.get("key", 0),
        btf_value_type_id=types.ids.get("value", 0),
        inner=inner_info,
    )
    return make_map(fd, info, codecs, name=name, pins=pins)


def _kind(type: str | MapType) -> MapType:
    kind = type if isinstance(type, MapType) else MapType.from_name(type)
    if kind is None:
        known = [str(t) for t in MapType if t]
        raise NameLookupError("no map type", on=repr(type), fix=closest(str(type).lower(), known))
    if kind == MapType.STRUCT_OPS:
        raise UnsupportedError(
            "cannot create",
            on="a struct_ops map",
            why="it consists of programs",
            fix="define it in a .bpf.c file and load that",
            errno=errno.EOPNOTSUPP,
        )
    return kind


def _checked_name(name: str | None, kind: MapType) -> str:
    if name is None:
        return str(kind)
    if not _NAME.fullmatch(name):
        raise MapValueError(
            "cannot create",
            on=f"map {name!r}",
            why="the kernel takes names of letters, digits, '_' and '.'",
            fix=f"write name={_NOT_IN_NAMES.sub('_', name)!r}; the kernel keeps its first 15 characters",
        )
    return name


def _entries(kind: MapType, shape: TypeRules, given: int | None, on: str) -> int:
    if not shape.entries:
        if given:
            raise MapValueError(
                "cannot create",
                on=on,
                why=f"max_entries is {given}, but its size depends on the owners of its values",
                fix="leave max_entries out",
            )
        return 0
    if given is None and kind == MapType.PERF_EVENT_ARRAY:
        return possible_cpus()
    if given is None:
        raise MapValueError("cannot create", on=on, why="max_entries is missing", fix="give max_entries=…")
    return _number("max_entries", given, 32, on)


def _number(name: str, given: Any, bits: int, on: str) -> int:
    """Returns the argument `given`. Raises `MapTypeError` or `MapOverflowError`."""
    if not isinstance(given, int):
        why = f"{name} is {type(given).__name__}, not a number"
        raise MapTypeError("cannot create", on=on, why=why, fix=f"give an int: {name}=16")
    if not 0 <= given < 1 << bits:
        why = f"{name} is {given}, and the kernel takes 0 to {(1 << bits) - 1}"
        raise MapOverflowError("cannot create", on=on, why=why)
    return given


def _size(  # noqa: PLR0917
    part: str, given: CType, default: int, types: Types, codecs: Codecs | None, on: str
) -> int:
    """Returns the size of a key or value in bytes."""
    if given is None:
        if default == ANY:
            fix = f"give {part}='u32', a struct, or a size in bytes"
            raise MapTypeError("cannot create", on=on, why=f"its {part} is missing", fix=fix)
        return default
    if default == 0:
        raise MapTypeError("cannot create", on=on, why=f"it has no {part}", fix=f"leave {part}={given!r} out")
    if codecs is not None and part in types.ids:
        return codecs.get(types.ids[part]).size
    return _number(part, given, 32, on)


@contextmanager
def _model(
    compiler: Compiler, kind: MapType, inner: Map | Mapping[str, Any] | None, on: str
) -> Iterator[Map | None]:
    """Yields the model of the inner maps of a map of maps: a live map, or one that is closed at the end."""
    if inner is None and kind in OF_MAPS:
        raise MapTypeError(
            "cannot create",
            on=on,
            why="inner, the model of its maps, is missing",
            fix="give a live map, or inner={'type': 'array', 'value': 'u64', 'max_entries': 4}",
        )
    if inner is not None and kind not in OF_MAPS:
        raise MapTypeError("cannot create", on=on, why="only maps of maps have an inner map")
    if not isinstance(inner, Mapping):
        yield inner
        return
    with create_map(compiler, **inner) as made:
        yield made


def _create(wanted: _Request) -> int:
    """Returns a descriptor of a new map, with types unless the kernel refuses only these."""
    btf_fd = _load_btf(wanted.types.btf)
    try:
        fd = _call(wanted, btf_fd) if btf_fd >= 0 else -errno.EINVAL
    finally:
        if btf_fd >= 0:
            os.close(btf_fd)
    # many map types take no BTF, and old kernels lack some of it; libbpf tries again without it, too
    if fd < 0:
        fd = _call(wanted, -1)
    if fd < 0:
        raise _refusal(wanted, -fd)
    return fd


def _load_btf(raw: bytes) -> int:
    return int(lib.bpf_btf_load(ffi.from_buffer(raw), len(raw), ffi.NULL)) if raw else -1


def _call(wanted: _Request, btf_fd: int) -> int:
    settings = opts(
        "bpf_map_create_opts",
        map_flags=wanted.flags,
        map_extra=wanted.extra,
        inner_map_fd=wanted.inner_fd,
    )
    if btf_fd >= 0:
        settings.btf_fd = btf_fd
        settings.btf_key_type_id = wanted.types.ids.get("key", 0)
        settings.btf_value_type_id = wanted.types.ids.get("value", 0)
    name = wanted.name[:_KERNEL_NAME].encode()
    sizes = (wanted.key_size, wanted.value_size, wanted.max_entries)
    with capture_log():
        return int(lib.bpf_map_create(wanted.type, name, *sizes, settings))


def _refusal(wanted: _Request, number: int) -> MapError | UnsupportedError:
    sizes = (wanted.key_size, wanted.value_size, wanted.max_entries)
    asked = Attributes(
        wanted.type, *sizes, wanted.flags, wanted.extra, wanted.inner_fd, typed=bool(wanted.types.ids)
    )
    why, fix = explain_refused_map(asked, number)
    lacks = number not in (errno.EPERM, errno.EACCES) and not probe("map_type", str(wanted.type))
    return (UnsupportedError if lacks else MapError)(
        "cannot create", on=str(wanted), why=why, fix=fix, errno=number
    )
