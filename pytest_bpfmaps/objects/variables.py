"""Global variables of a program: ``const volatile``, ``.data``, ``.bss``, as attributes and items.

Before the load their bytes are in libbpf's memory. After the load they are in maps that this process shares
with the kernel: reading and writing is plain memory access, and overwrites no update of a program. A section
that can't be shared is read and written as a whole.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pytest_bpfmaps.btf import Codec, Codecs, Kind
from pytest_bpfmaps.btf.codec import BoolCodec, IntCodec
from pytest_bpfmaps.btf.comparison import same
from pytest_bpfmaps.btf.special_fields import is_kernel_field, kernel_fields
from pytest_bpfmaps.btf.types import MODIFIERS, Btf, Variable
from pytest_bpfmaps.errors import (
    AmbiguousNameError,
    ClosedError,
    MapError,
    MapValueError,
    NameLookupError,
    closest,
)
from pytest_bpfmaps.objects.data_section import DataSection


class Source(Protocol):
    """What else is known of the variables of an object."""

    def of_variables(self, section: str, name: str, places: list[tuple[int, int]]) -> list[str]:
        """Returns the source of each variable of that name; `places` has their (offset, size)."""

    def two_values(self, name: str) -> tuple[int, int] | None:
        """Returns the values of a variable of which clang keeps only a byte, for the bytes 0 and 1."""

    def is_used(self, section: str, offset: int, size: int) -> bool:
        """Returns whether an instruction refers to these bytes of a section, or nobody knows."""


@dataclass(frozen=True, slots=True)
class _Variable:
    """A variable. `size` in bytes is larger than its type's if it ends in a flexible array.

    `values` are the values of which clang keeps only a byte, which says which of the two it is; else empty.
    clang may replace a constant that is not volatile by its value.
    """

    section: DataSection
    offset: int
    codec: Codec
    size: int
    values: tuple[bytes, ...] = ()
    is_volatile: bool = True

    def read(self) -> Any:
        raw = self.section.read(self.offset, self.offset + self.size)
        return self.codec.decode_rest(self.values[raw[0] & 1] if self.values else raw)

    def write(self, value: Any, where: str) -> None:
        raw = self.codec.encode_record(value, where)
        if self.values and raw not in self.values:
            known = " and ".join(repr(self.codec.decode(each)) for each in self.values)
            raise MapValueError(
                f"cannot store {value!r}",
                on=f"in {where}",
                why=f"the program gives it only {known}, and clang keeps only a byte that tells these apart",
                fix="declare it volatile, or without 'static'",
            )
        if self.values:
            raw = bytes([self.values.index(raw)])
        if len(raw) > self.size:
            why = f"the variable has {self.size} bytes"
            raise MapValueError(f"cannot store {len(raw)} bytes", on=f"in {where}", why=why)
        self.section.write(self.offset, raw.ljust(self.size, b"\0"))


class Globals:
    """The object's global variables; ``g.x``, ``g["x"]``, ``g.x = 3``, iterable by name.

    Any C name works as an attribute, even ``_state``. Only Python's own names between double underscores need
    ``g["x"]``. If several linked sources have a variable of the same name, these are ``g["a.x"]`` and
    ``g["b.x"]``; `source` finds the source of each.
    """

    def __init__(
        self, on: str, sections: list[DataSection], codecs: Codecs | None, source: Source | None = None
    ) -> None:
        object.__setattr__(self, "_Globals__on", on)
        object.__setattr__(self, "_Globals__state", "opened")
        object.__setattr__(self, "_Globals__sections", sections)
        object.__setattr__(self, "_Globals__source", source)
        object.__setattr__(
            self, "_Globals__variables", _find_variables(sections, codecs, source) if codecs else {}
        )

    def __getitem__(self, name: str) -> Any:
        return self.__find(name, "read").read()

    def __setitem__(self, name: str, value: Any) -> None:
        variable = self.__find(name, "set")
        if variable.section.name == ".kconfig":
            raise MapError(
                f"cannot set {name!r}",
                on=f"of {self.__on}",
                why="libbpf sets it from the kernel's configuration when the object is loaded",
                fix=f"replace the option: bpf.load(…, kconfig={{{name!r}: {value!r}}})",
                errno=errno.EPERM,
            )
        if self.__state == "loaded" and variable.section.read_only:
            raise MapError(
                f"cannot set {name!r}",
                on=f"of {self.__on}",
                why=f"it is in {variable.section.name}, which the kernel froze when the object was loaded",
                fix=f"set it before: bpf.load(…, globals={{{name!r}: {value!r}}})",
                errno=errno.EPERM,
            )
        source, is_constant = self.__source, variable.section.read_only and not variable.is_volatile
        if (
            is_constant
            and source
            and not source.is_used(variable.section.name, variable.offset, variable.size)
        ):
            raise MapError(
                f"cannot set {name!r}",
                on=f"of {self.__on}",
                why="it is const but not volatile, and clang has put its value into the code: no instruction "
                "reads the variable",
                fix=f"declare it const volatile … {name}",
                errno=errno.EPERM,
            )
        variable.write(value, f"global {name!r}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in self:
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __contains__(self, name: object) -> bool:
        return name in self.__variables

    def __iter__(self) -> Iterator[str]:
        return iter(self.__variables)

    def __len__(self) -> int:
        return len(self.__variables)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.__variables]

    def __eq__(self, other: object) -> bool:
        """Returns whether the variables are those of a mapping, and have its values now."""
        if other is self or not isinstance(other, Mapping):
            return other is self or NotImplemented
        return len(self) == len(other) and bool(self >= other)

    def __ge__(self, other: object) -> bool:
        """Returns whether all variables of a mapping are here, and have its values now."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return all(
            name in self and same(self.__variables[name].codec, self[name], other[name]) for name in other
        )

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<globals of {self.__on}: {', '.join(self.__variables) or 'none'}>"

    def __find(self, name: str, verb: str) -> _Variable:
        if self.__state == "closed":
            raise ClosedError(f"cannot {verb} {name!r}", on=f"of {self.__on}", why="the object is closed")
        found: _Variable | None = self.__variables.get(name)
        if found is None:
            alike = [known for known in self.__variables if known.endswith(f".{name}")]
            if len(alike) > 1:
                raise AmbiguousNameError(
                    f"several global variables are called {name!r}",
                    on=f"in {self.__on}",
                    why="several of the linked sources have one",
                    fix="name the source: " + " or ".join(f"globals[{known!r}]" for known in alike),
                )
            kept = any(name in section.hidden for section in self.__sections)
            why, fix = _explain_parts(self.__sections, name) or (
                ("only the kernel may read and write its type", None)
                if kept
                else (None, closest(name, self.__variables))
            )
            raise NameLookupError(f"no global variable {name!r}", on=f"in {self.__on}", why=why, fix=fix)
        return found


def enter(variables: Globals, state: str) -> None:
    """Sets the phase of the variables' object: ``opened``, ``loaded``, ``closed``."""
    object.__setattr__(variables, "_Globals__state", state)
    for section in vars(variables)["_Globals__sections"]:
        section.loaded = state == "loaded"
        if state == "closed":
            section.close()


def _explain_parts(sections: list[DataSection], name: str) -> tuple[str, str] | None:
    """Returns why a variable is missing of which clang keeps only a part, and what to do."""
    parts = {
        part: sizes
        for section in sections
        for part, sizes in section.parts.items()
        if part == name or part.startswith(f"{name}.")
    }
    if not parts:
        return None
    kept = " and ".join(f"{part!r} ({size} of {whole} bytes)" for part, (size, whole) in parts.items())
    base = name.partition(".")[0]
    return (
        f"clang has optimized it, and keeps only {kept} of it, so its value can't be read or written",
        f"declare {base!r} volatile, or without 'static'",
    )


def _find_variables(
    sections: list[DataSection], codecs: Codecs, source: Source | None
) -> dict[str, _Variable]:
    found: dict[str, list[_Variable]] = {}
    for section in sections:
        datasec = codecs.btf.datasecs.get(section.name)
        for v in datasec.variables() if datasec else ():
            section.kept |= kernel_fields(codecs.btf, v.type_id)
            if is_kernel_field(codecs.btf, v.type_id):
                section.hidden.add(v.name)
                continue
            codec = codecs.get(v.type_id)
            values = _values(v, codec, source)
            if v.is_part_of(codec.size) and not values:
                section.parts[v.name] = v.size, codec.size
                continue
            size = v.size if values or (codec.flexible and v.size) else codec.size
            volatile = _is_volatile(codecs.btf, v.type_id)
            variable = _Variable(section, v.offset, codec, size, values, volatile)
            found.setdefault(v.name, []).append(variable)
    made: dict[str, _Variable] = {}
    for name, alike in found.items():
        names = [name] if len(alike) == 1 else _tell_apart(name, alike, source)
        made.update(zip(names, alike, strict=True))
    return made


def _is_volatile(btf: Btf, type_id: int) -> bool:
    """Returns whether a variable of that type, or the elements of an array of that type, are volatile."""
    each = btf.type(type_id)
    while each.kind in (*MODIFIERS, Kind.ARRAY):
        if each.kind is Kind.VOLATILE:
            return True
        each = btf.type(each.array()[0]) if each.kind is Kind.ARRAY else each.target
    return False


def _values(variable: Variable, codec: Codec, source: Source | None) -> tuple[bytes, ...]:
    """Returns the two values of a number of which clang keeps only a byte; empty if they are not known."""
    is_number = isinstance(codec, IntCodec) and not isinstance(codec, BoolCodec)
    if variable.size != 1 or not variable.is_static or not is_number or source is None:
        return ()
    numbers = source.two_values(variable.name.rpartition(".")[2]) or ()
    return tuple((n & (1 << 8 * codec.size) - 1).to_bytes(codec.size, sys.byteorder) for n in numbers)


def _tell_apart(name: str, alike: list[_Variable], source: Source | None) -> list[str]:
    """Returns distinct names for variables of one name: by the source, else by the place in the section."""
    names = [f"{v.section.name}+{v.offset}.{name}" for v in alike]
    for section in dict.fromkeys(v.section for v in alike) if source else ():
        assert source is not None
        here = sorted((v.offset, i) for i, v in enumerate(alike) if v.section is section)
        places = [(offset, alike[i].codec.size) for offset, i in here]
        files = source.of_variables(section.name, name, places)
        for (_, i), file in zip(here, files, strict=True):
            if file and files.count(file) == 1:
                names[i] = f"{file}.{name}"
    return names if len(set(names)) == len(names) else [f"{n}#{i}" for i, n in enumerate(names)]


def names_in(variables: Globals, section: str) -> list[str]:
    """Returns the names of the variables of a section."""
    found: dict[str, _Variable] = vars(variables)["_Globals__variables"]
    return [name for name, each in found.items() if each.section.name == section]


def codecs_of(variables: Globals) -> dict[str, Codec]:
    """Returns the codec of each variable, by name."""
    return {name: each.codec for name, each in vars(variables)["_Globals__variables"].items()}
