"""Finds what libbpf would refuse in an object that is repaired here, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pytest_bpfmaps.compiler.portability import Finding
from pytest_bpfmaps.events.printk_formats import refused_conversion
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.libbpf import ffi, lib, version
from pytest_bpfmaps.maps import MapType
from pytest_bpfmaps.objects.diagnosis.source_lines import Line, format_line, map_line, section_line
from pytest_bpfmaps.objects.map_spec import MapSpec
from pytest_bpfmaps.programs.program_spec import ProgramSpec

_SPELLINGS = {
    MapType.RINGBUF: 'leave it out, and name the records\' struct in the test: capture("event")',
    MapType.USER_RINGBUF: 'leave it out, and name the records\' struct in the test: send(value, "command")',
    MapType.PERF_EVENT_ARRAY: "write __uint(key_size, sizeof(int)) and __uint(value_size, sizeof(int)), and "
    'name the records\' struct in the test: capture("event")',
}


def repaired(path: Path, name: str, maps: Iterable[MapSpec], legacy: Iterable[str]) -> Iterator[Finding]:
    """Yields the findings of the object at `path`, called `name`; `legacy` has its legacy maps' names."""
    for each in legacy:
        what = f"map {each!r} is a legacy definition, which libbpf 1.0 and later refuse"
        spelling = f'write struct {{ __uint(type, …); __type(key, …); … }} {each} SEC(".maps")'
        yield _at(map_line(path, each), path, name, what, spelling)
    for spec in maps:
        if spec.refused_sizes:
            sizes = " and ".join(spec.refused_sizes)
            refused = f"which libbpf and the kernel refuse of type {spec.type} (EINVAL)"
            what = f"map {spec.name!r} declares {sizes}, {refused}"
            yield _at(map_line(path, spec.name), path, name, what, _SPELLINGS[MapType(spec.type)])
        if spec.type == MapType.ARENA and lib.libbpf_bpf_map_type_str(MapType.ARENA) == ffi.NULL:
            known = "libbpf {}.{}".format(*version())
            what = f"map {spec.name!r} is an arena, which {known} does not map, so that no program loads"
            yield _at(map_line(path, spec.name), path, name, what, "use libbpf 1.4 or later")


def taught_sections(path: Path, name: str, programs: Iterable[ProgramSpec]) -> Iterator[Finding]:
    """Yields the findings for sections that libbpf does not know, of programs that are to be loaded."""
    for program in programs:
        if program.taught_section and program.autoload:
            line = section_line(path, program.section)
            yield _at(line, path, name, *program.taught_section)


def unknown_members(path: Path, name: str, members: Mapping[str, Iterable[str]]) -> Iterator[Finding]:
    """Yields the findings for members of struct_ops structs that this kernel lacks and that are zero."""
    for each, unknown in members.items():
        known = "libbpf {}.{}".format(*version())
        lacking = f"whose struct lacks {', '.join(unknown)} (which are zero)"
        what = f"{known} refuses map {each!r} on Linux {release()}, {lacking}"
        spelling = "use libbpf 1.5 or later, or declare the struct yourself with the members that you set"
        yield _at(map_line(path, each), path, name, what, spelling)


def misplaced(path: Path, name: str, moved: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Yields the findings for maps and variables of a linked object whose types have a wrong place."""
    for section, each in moved:
        kind, line = ("map", map_line(path, each)) if section == ".maps" else ("variable", None)
        follows = "so libbpf refuses the object" if kind == "map" else "so a skeleton reads another variable"
        what = f"{kind} {each!r} is declared before it is defined: libbpf's linker misplaces it, {follows}"
        spelling = "put the source that defines it before the sources that declare it extern"
        yield _at(line, path, name, what, spelling)


def refused_formats(path: Path, name: str, formats: Iterable[str]) -> Iterator[Finding]:
    """Yields the findings for formats of ``bpf_printk`` that this kernel refuses, printing nothing."""
    for format in formats:
        if conversion := refused_conversion(format):
            what = f"bpf_printk() prints nothing: Linux {release()} refuses {conversion!r} in its format"
            spelling = "use %d, %i, %u, %x, %ld, %lld, %llu, %p or %s; BPF has no floating point"
            yield _at(format_line(path, conversion), path, name, what, spelling)


def _at(line: Line | None, path: Path, name: str, what: str, spelling: str) -> Finding:
    """Returns the finding; if its line is not known, it names the object's file, or the source's name."""
    if line is None:
        return Finding(str(path) if path.name == name else name, 0, what, spelling)
    return Finding(str(line.file), line.number, what, spelling)
