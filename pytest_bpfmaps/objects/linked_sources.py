"""Finds which source a name belongs to, in an object that was linked from several sources.

Two sources may each have their own ``struct event``, and their own ``static`` variable of one name. For an
object that was linked here, the input objects answer that. For any other object, the programs answer it: by
the file of the function that refers to a variable, and by how many bytes go into a buffer.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pytest_bpfmaps.btf import Codecs, Kind
from pytest_bpfmaps.btf.dwarf import read_local_types
from pytest_bpfmaps.btf.dwarf_values import two_values
from pytest_bpfmaps.btf.line_info import SourceLine, source_lines
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.compiler.linked_objects import linked_inputs
from pytest_bpfmaps.elf.editor import RELOCATION, SHF_EXECINSTR, SHT_REL, STT_FUNC, Elf, Section, Symbol
from pytest_bpfmaps.errors import AmbiguousNameError, NameLookupError
from pytest_bpfmaps.kernel.btf import parse_codecs
from pytest_bpfmaps.objects.buffer_sizes import sizes_by_map


class Sources:
    """The structs and variables of the sources of the object at `path`; each is read when it is needed."""

    def __init__(self, path: Path, codecs: Codecs | None) -> None:
        self._path = path
        self._codecs = codecs
        self._values: dict[str, tuple[int, int] | None] = {}

    def codecs_for(self, map_name: str) -> Codecs | None:
        """Returns the object's codecs, with structs of the sources that use the map."""
        if self._codecs is None:
            return None
        return self._codecs.preferring(lambda name: self.struct(name, map_name))

    # structs

    def struct(self, name: str, map_name: str) -> StructCodec | None:
        """Returns the struct that `name` means for records of a map; None if the object has no choice.

        ``a.event`` is the struct of the source a.bpf.c. Raises `AmbiguousNameError` when it may be any of
        several structs, and `NameLookupError` when that source has none.
        """
        return self._of_inputs(name, map_name) if self._inputs else self._by_size(name, map_name)

    @cached_property
    def _inputs(self) -> dict[str, _Input]:
        """By the sources' names without suffix."""
        paths = linked_inputs(self._path)
        names = [path.name.split(".")[0] for path in paths]
        return {
            name if names.count(name) == 1 else f"{name}#{i}": _Input(path)
            for i, (name, path) in enumerate(zip(names, paths, strict=True), 1)
        }

    def _of_inputs(self, name: str, map_name: str) -> StructCodec | None:
        source, _, rest = name.partition(".")
        if rest and source in self._inputs:
            found = self._inputs[source].struct(rest)
            if found is None:
                raise NameLookupError(f"no struct {rest!r}", on=f"in {source} of {self._path.name}")
            return found
        using = {n: i for n, i in self._inputs.items() if map_name in i.symbols} or self._inputs
        found_in = {n: codec for n, i in using.items() if (codec := i.struct(name))}
        found_in = found_in or {n: codec for n, i in self._inputs.items() if (codec := i.struct(name))}
        if len({codec.layout for codec in found_in.values()}) > 1:
            raise _ambiguous(name, map_name, found_in, f"capture({next(iter(found_in)) + '.' + name!r})")
        return next(iter(found_in.values()), None)

    def _by_size(self, name: str, map_name: str) -> StructCodec | None:
        assert self._codecs is not None
        kinds = (Kind.STRUCT, Kind.UNION, Kind.TYPEDEF)
        ids = [t.id for t in self._codecs.btf.of_kind(*kinds) if t.name == name]
        if len(ids) < 2:
            return None
        codecs = [codec for i in ids if isinstance(codec := self._codecs.get(i), StructCodec)]
        different = {codec.layout: codec for codec in codecs}
        if len(different) < 2:
            return None
        used = sizes_by_map(self._path).get(map_name, set())
        fitting = [codec for codec in different.values() if codec.size in used]
        if len(fitting) == 1:
            return fitting[0]
        several = {f"{codec.size} bytes": codec for codec in different.values()}
        raise _ambiguous(name, map_name, several, None)

    # variables

    def of_variables(self, section: str, name: str, places: list[tuple[int, int]]) -> list[str]:
        """Returns the source, without suffix, of each of several variables with the same name.

        `places` has (offset, size) of each variable in the section. A source that is not known is empty.
        """
        having = [n for n, one in self._inputs.items() if name in one.variables(section)]
        if len(having) == len(places):  # the linker joins the inputs' sections in the order of the inputs
            return having
        uses = self._uses.get(section, [])
        return [
            next((source for at, source in uses if start <= at < start + size), "") for start, size in places
        ]

    def two_values(self, name: str) -> tuple[int, int] | None:
        """Returns the values of a variable of which clang keeps only a byte, for the bytes 0 and 1."""
        if name not in self._values:
            self._values[name] = two_values(self._path, name)
        return self._values[name]

    def is_used(self, section: str, offset: int, size: int) -> bool:
        """Returns whether an instruction refers to these bytes of a section, or nobody knows."""
        if self._references is None:
            return True
        return any(
            each.section == section and offset <= each.offset < offset + size for each in self._references
        )

    @cached_property
    def _references(self) -> list[_Reference] | None:
        try:
            return list(_references_of(Elf(self._path.read_bytes())))
        except (OSError, ValueError, LookupError, struct.error):
            return None

    @cached_property
    def _uses(self) -> dict[str, list[tuple[int, str]]]:
        """By section: offsets, and the source of the function that refers to each offset."""
        try:
            return _uses_of(self._path)
        except (OSError, ValueError, LookupError, struct.error):
            return {}


@dataclass(frozen=True, slots=True)
class _Reference:
    """An instruction that refers to a place in a section: its own section, and its offset there."""

    section: str
    offset: int
    program: Section
    at: int


def _references_of(elf: Elf) -> Iterator[_Reference]:
    symbols = elf.symbols()
    for table in elf.sections:
        if table.type != SHT_REL or not elf.sections[table.info].flags & SHF_EXECINSTR:
            continue
        program = elf.sections[table.info]
        code = elf.content(program)
        for at, info in RELOCATION.iter_unpack(elf.content(table)):
            symbol = symbols[info >> 32]
            if 0 < symbol.section < len(elf.sections):
                (addend,) = struct.unpack_from("=i", code, at + 4)
                yield _Reference(elf.sections[symbol.section].name, symbol.value + addend, program, at)


def _uses_of(path: Path) -> dict[str, list[tuple[int, str]]]:
    elf = Elf(path.read_bytes())
    symbols, lines = elf.symbols(), source_lines(path)
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for each in _references_of(elf):
        if source := _source_at(symbols, lines, each.program, each.at):
            found[each.section].append((each.offset, source))
    return found


def _source_at(symbols: list[Symbol], lines: list[SourceLine], program: Section, at: int) -> str:
    """Returns the source, without suffix, of the function with the instruction at an offset of a section.

    Lines of inlined functions belong to headers or to the same source. So the source is the C file with the
    most lines.
    """
    of_section = [s for s in symbols if s.section == program.index and s.type == STT_FUNC]
    function = next((s for s in of_section if s.value <= at < s.value + s.size), None)
    if function is None:
        return ""
    end = function.value + function.size
    files = Counter(
        line.file
        for line in lines
        if line.section == program.name and function.value <= line.offset < end and line.file.endswith(".c")
    )
    return Path(files.most_common(1)[0][0]).name.split(".")[0] if files else ""


class _Input:
    """One of the objects that were linked."""

    def __init__(self, path: Path) -> None:
        self._elf = Elf(path.read_bytes())
        self._path = path

    @cached_property
    def symbols(self) -> set[str]:
        """The names that the object defines or refers to."""
        return {symbol.name for symbol in self._elf.symbols()}

    @cached_property
    def codecs(self) -> Codecs | None:
        """The codecs of its own types, including those of local variables."""
        section = self._elf.section(".BTF")
        if section is None:
            return None

        def local() -> Codecs | None:
            raw = read_local_types(self._path)
            return parse_codecs(raw) if raw else None

        return parse_codecs(self._elf.content(section)).with_more(local)

    def struct(self, name: str) -> StructCodec | None:
        """Returns its struct of that name, if it has one."""
        try:
            return self.codecs.struct(name) if self.codecs else None
        except NameLookupError:
            return None

    def variables(self, section: str) -> list[str]:
        """Returns the names of the variables that it puts into a data section."""
        datasec = self.codecs.btf.find(section, Kind.DATASEC) if self.codecs else None
        return [v.name for v in datasec.variables()] if datasec else []


def _ambiguous(
    name: str, map_name: str, found: dict[str, StructCodec], example: str | None
) -> AmbiguousNameError:
    listed = "; ".join(f"{where}: {{{', '.join(codec.by_name)}}}" for where, codec in found.items())
    return AmbiguousNameError(
        f"several structs are called {name!r}",
        on=f"for records of map {map_name!r}",
        why=listed,
        fix=f"name the source: {example}"
        if example
        else 'load the sources together, bpf.load(["a.bpf.c", "b.bpf.c"]), and name the source: "a.'
        + name
        + '"',
    )
