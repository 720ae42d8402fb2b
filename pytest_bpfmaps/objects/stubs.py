"""Writes a Python module with the types of objects: maps, programs, global variables and records.

A test imports `Bpf` from it. Type checkers and editors then know what ``bpf.load("x.bpf.c")`` returns.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_bpfmaps.btf import BytesCodec, Codec, Codecs
from pytest_bpfmaps.btf.array_codecs import ArrayCodec, TextCodec
from pytest_bpfmaps.btf.codec import BoolCodec, FloatCodec, IntCodec, WideIntCodec
from pytest_bpfmaps.btf.enums import EnumCodec
from pytest_bpfmaps.btf.ip_addresses import AddressCodec
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.errors import AmbiguousNameError, LoadError, NameLookupError
from pytest_bpfmaps.events.ringbuf import DEFAULT_STRUCT
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.maps.info import BUFFERS
from pytest_bpfmaps.objects.collection import names_of
from pytest_bpfmaps.objects.map_spec import MapSpec
from pytest_bpfmaps.objects.opened import OpenedObject
from pytest_bpfmaps.objects.variables import codecs_of

_HEAD = """\
# Made by `bpfmaps stubs`. What is changed here is lost.
# ruff: noqa
# fmt: off
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import builtins  # a map or field may be called `bytes`
    from collections.abc import Iterator, Sequence
    from typing import Any, Literal, overload

    import pytest_bpfmaps
    from pytest_bpfmaps import LoadedObject, Map, Program
    from pytest_bpfmaps.events.ringbuf import RecordType
    from pytest_bpfmaps.objects.stub_types import Fields, KeyedMap, Parts, Records, Variables
"""
_TAKEN = (
    *("Iterator", "Sequence", "Any", "Literal", "LoadedObject", "Map", "Program", "RecordType", "Bpf"),
    *("Fields", "KeyedMap", "Parts", "Records", "Variables"),
)
_METHODS = ("names", "_asdict")  # an attribute of the object hides a method
_MOST_STRUCTS = 40
"""The most structs for which `capture` is declared one by one."""

# types whose elements have values of the type that the object declares
_KEYED = (
    *(MapType.HASH, MapType.LRU_HASH, MapType.ARRAY, MapType.LPM_TRIE, MapType.QUEUE, MapType.STACK),
    *(MapType.SK_STORAGE, MapType.INODE_STORAGE, MapType.TASK_STORAGE, MapType.CGRP_STORAGE),
)


def write_stubs(objects: Iterable[tuple[str, Path]]) -> str:
    """Returns the text of the module, for objects by the name that `Bpf.load` gets.

    Raises `LoadError` for a file that is not a BPF object, or has no BTF.
    """
    names = _Names()
    parts, loads = [], []
    for source, path in objects:
        with OpenedObject(path, name=source, quiet=True) as opened:
            made = _Object(source, opened, names)
            parts.append("\n".join(made.lines()))
            loads.append((source, made.name))
    return _HEAD + "".join(parts) + _bpf(loads) + _at_run_time(names.objects, names.records)


class _Names:
    """The names of the module's classes; no two are the same."""

    def __init__(self) -> None:
        self._taken = set(_TAKEN)
        self.objects: list[str] = []
        self.records: list[str] = []

    def new(self, wanted: str) -> str:
        number, name = 1, wanted
        while name in self._taken or keyword.iskeyword(name):
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


class _Object:
    """The classes of one object."""

    def __init__(self, source: str, opened: OpenedObject, names: _Names) -> None:
        codecs = opened.parts[2]
        if codecs is None:
            raise LoadError(
                "cannot make stubs",
                on=f"for {source}",
                why="it has no BTF, so it has no types",
                fix="compile it with 'clang -g', or give its source",
            )
        self._codecs: Codecs = codecs
        self._opened = opened
        self._names = names
        self._prefix = _camel(Path(source).name.split(".")[0])
        self.name = names.new(f"{self._prefix}Object")
        names.objects.append(self.name)
        self._records: dict[int, str] = {}  # by the identity of the codec
        self._waiting: list[tuple[str, StructCodec]] = []

    def lines(self) -> Iterator[str]:
        """Yields the lines of the classes. Each record's class comes once."""
        kinds = ("Maps", "Programs", "Globals")
        maps, programs, variables = (self._names.new(self._prefix + kind) for kind in kinds)
        buffers = list(self._buffer_maps())
        buffer = self._names.new(f"{self._prefix}Buffer") if buffers else ""
        yield ""
        if buffer:
            yield from self._buffer(buffer)
        types = {spec.name: buffer if spec.name in buffers else self._map(spec) for spec in self._opened.maps}
        yield from _parts(maps, types, "Map")
        yield from _parts(programs, dict.fromkeys(names_of(self._opened.programs), "Program"), "Program")
        yield from _attributes(
            variables, "Variables", {n: self._type(c) for n, c in codecs_of(self._opened.globals).items()}
        )
        while self._waiting:
            name, codec = self._waiting.pop(0)
            fields = {f.name: self._type(f.codec) for f in codec.fields if f.name}
            yield from _attributes(name, "Fields", fields, f"struct or union {codec.name}")
        yield f"    class {self.name}(LoadedObject):"
        yield f"        maps: {maps}  # type: ignore[assignment]"
        yield f"        programs: {programs}  # type: ignore[assignment]"
        yield f"        globals: {variables}  # type: ignore[assignment]"
        yield ""

    def _buffer_maps(self) -> Iterator[str]:
        for spec in self._opened.maps:
            if spec.type in BUFFERS and spec.type != MapType.USER_RINGBUF and not spec.declared.value:
                yield spec.name

    def _buffer(self, name: str) -> Iterator[str]:
        """Yields the class of a map whose records have the type that `capture` names."""
        known = dict(self._known_structs())
        yield f"    class {name}(Map):"
        rest = "*, tag: str | None = None, tap: bool | None = None, pages: int = 64"
        default = known.get(DEFAULT_STRUCT)
        overloads = {"type: None = None": default} if default else {}
        overloads |= {f'type: Literal["{each}"]': made for each, made in known.items()}
        overloads["type: RecordType = None"] = "Any"
        for taken, made in overloads.items():
            if len(overloads) > 1:
                yield "        @overload"
            yield f"        def capture(self, {taken}, {rest}) -> Records[{made}]: ..."
        if len(overloads) > 1:
            yield "        def capture(self, type: Any = None, **options: Any) -> Any: ..."
        yield ""

    def _known_structs(self) -> Iterator[tuple[str, str]]:
        """Yields the named structs that `capture` can find, and the class of each."""
        for name in dict.fromkeys([DEFAULT_STRUCT, *self._codecs.all_struct_names()][:_MOST_STRUCTS]):
            try:
                yield name, self._type(self._codecs.struct(name))
            except (AmbiguousNameError, NameLookupError):
                continue  # `capture` refuses the name, too

    def _map(self, spec: MapSpec) -> str:
        if spec.type in _KEYED and spec.declared.value and not spec.changed:
            key = self._type(self._codecs.get(spec.declared.key)) if spec.declared.key else "Any"
            return f"KeyedMap[{key}, {self._type(self._codecs.get(spec.declared.value))}]"
        return "Map"

    def _type(self, codec: Codec) -> str:
        """Returns the Python type of what a codec decodes; ``Any`` where there are several."""
        match codec:
            case AddressCodec() | EnumCodec():
                return "Any"  # they compare with text, too
            case BoolCodec():
                return "builtins.bool"
            case IntCodec() | WideIntCodec():
                return "builtins.int"
            case FloatCodec():
                return "builtins.float"
            case TextCodec():
                return "builtins.str"
            case BytesCodec():
                return "builtins.bytes"
            case ArrayCodec():
                return f"Sequence[{self._type(codec.element)}]"
            case StructCodec():
                return self._record(codec)
        return "Any"

    def _record(self, codec: StructCodec) -> str:
        if id(codec) not in self._records:
            name = self._names.new(self._prefix + (_camel(codec.name.split()[-1]) or "Record"))
            self._records[id(codec)] = name
            self._names.records.append(name)
            self._waiting.append((name, codec))
        return self._records[id(codec)]


def _parts(name: str, types: dict[str, str], every: str) -> Iterator[str]:
    """Yields a class of maps or programs: an attribute for each, and items for names that can't be one."""
    yield f"    class {name}(Parts):"
    yield f"        def __iter__(self) -> Iterator[{every}]: ..."
    for each, made in types.items():
        yield "        @overload"
        yield f'        def __getitem__(self, name: Literal["{each}"]) -> {made}: ...'
    if types:
        yield "        @overload"
    yield f"        def __getitem__(self, name: str) -> {every}: ..."
    if types:
        yield "        def __getitem__(self, name: str) -> Any: ..."
    yield from _declared(types)
    yield ""


def _attributes(name: str, base: str, types: dict[str, str], text: str = "") -> Iterator[str]:
    yield f"    class {name}({base}):"
    if text:
        yield f'        """{text}"""'
    lines = list(_declared(types))
    yield from lines if lines or text else ["        pass"]
    yield ""


def _declared(types: dict[str, str]) -> Iterator[str]:
    """Yields a line for each name. A name that can't be an attribute becomes a comment."""
    for each, made in types.items():
        if not each.isidentifier() or keyword.iskeyword(each) or each.startswith("__"):
            yield f'        # ["{each}"] has the type {made}'
        else:
            yield f"        {each}: {made}" + ("  # type: ignore[assignment]" if each in _METHODS else "")


def _bpf(loads: list[tuple[str, str]]) -> str:
    lines = ["", "    class Bpf(pytest_bpfmaps.Bpf):"]
    for source, name in loads:
        lines += ["        @overload"]
        lines += [f'        def load(self, source: Literal["{source}"], **options: Any) -> {name}: ...']
    lines += ["        @overload"] * bool(loads)
    lines += ["        def load(self, source: Any = None, **options: Any) -> LoadedObject: ..."]
    lines += ["        def load(self, source: Any = None, **options: Any) -> Any: ..."] * bool(loads)
    return "\n".join(lines) + "\n"


def _at_run_time(objects: list[str], records: list[str]) -> str:
    lines = ["", "else:", "    from pytest_bpfmaps import Bpf, LoadedObject, Record", ""]
    lines += [f"    {name} = LoadedObject" for name in objects]
    lines += [f"    {name} = Record" for name in records]
    return "\n".join(lines) + "\n"


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", name))
