"""A BPF object in the kernel."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self, cast

from pytest_bpfmaps.attach.dispatch import names_no_target
from pytest_bpfmaps.attach.links import Link, Links, close_all
from pytest_bpfmaps.attach.program_targets import ways_for
from pytest_bpfmaps.attach.struct_ops import register_struct_ops
from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.btf.special_fields import kernel_fields
from pytest_bpfmaps.compiler.counters_ir import SECTION as COUNTERS
from pytest_bpfmaps.compiler.counters_ir import SECTION_OF_VECTORS as VECTORS
from pytest_bpfmaps.errors import AttachError, ClosedError
from pytest_bpfmaps.kernel.open_resources import forget, note
from pytest_bpfmaps.libbpf import ffi, lib, to_str
from pytest_bpfmaps.libbpf.calls import walk
from pytest_bpfmaps.maps import MapType, make_map, map_info
from pytest_bpfmaps.maps.declared_types import DeclaredTypes, declared_types
from pytest_bpfmaps.maps.families.struct_ops import StructOpsMap
from pytest_bpfmaps.objects.any_map import Map
from pytest_bpfmaps.objects.collection import Named, all_of
from pytest_bpfmaps.objects.data_section import DataSection
from pytest_bpfmaps.objects.linked_sources import Sources
from pytest_bpfmaps.objects.object_file import created_map
from pytest_bpfmaps.objects.observer import Observer
from pytest_bpfmaps.objects.pinning import PinnedMaps
from pytest_bpfmaps.objects.variables import Globals, enter
from pytest_bpfmaps.programs.program import Program
from pytest_bpfmaps.verifier.walk import Walk

Again = Callable[[str], tuple[str, Walk]]
"""Loads the program of a name once more; returns the log of each step, and what it says."""


class LoadedObject:
    """An object in the kernel: `maps`, `programs`, `globals`, each by attribute, by item, and iterable.

    `descriptors` are the descriptors of its maps and programs at the time of the load. `counters` is libbpf's
    handle of the map with the counters, if the object counts which of its lines run. `vectors` is that of the
    map with the values of conditions, if it records them. They are not in `maps`. `handles` are libbpf's
    handles of the source's maps, and of its data sections, by name.
    """

    def __init__(
        self,
        handle: Any,
        name: str,
        codecs: Codecs | None,
        declared: Mapping[str, DeclaredTypes],
        sources: Sources,
        *,
        handles: tuple[Mapping[str, Any], Mapping[str, Any]],
        logs: Mapping[str, str],
        pinned: PinnedMaps,
        again: Again | None = None,
    ) -> None:
        self._handle = handle
        self.name = name
        self._links: list[Link] = []
        # by their names in the source: libbpf renames a map that reuses a live map
        user, internal = dict(handles[0]), dict(handles[1])
        self.counters = internal.pop(COUNTERS, None)
        self.vectors = internal.pop(VECTORS, None)
        self.maps = Named(
            "map",
            name,
            _make_maps(user, sources, declared, pinned),
            hidden=_make_maps(internal, sources, {}, pinned),
        )
        self._struct_ops = {
            n: m for n, m in user.items() if n in self.maps and lib.bpf_map__type(m) == MapType.STRUCT_OPS
        }
        for each in self._struct_ops:
            cast(StructOpsMap, self.maps[each]).declared_by(partial(self._register, each))
        programs = [
            Program(
                p,
                self._links,
                codecs,
                logs.get(to_str(lib.bpf_program__name(p)), ""),
                pinned.pins,
                walk=again and partial(again, to_str(lib.bpf_program__name(p))),
            )
            for p in walk(lib.bpf_object__next_program, handle)
            if lib.bpf_program__autoload(p)
        ]
        self.programs = Named("program", name, {p.name: p for p in programs})
        variables = [DataSection(n, m) for n, m in internal.items()]
        self.globals = Globals(name, variables, codecs, sources)
        enter(self.globals, "loaded")
        maps = all_of(self.maps)
        counters = (created_map(each) for each in (self.counters, self.vectors) if each is not None)
        self.descriptors = (*(m.fd for m in maps), *(p.fd for p in programs), *counters)
        note(f"object {name}", self.descriptors)
        self._observer: Observer[Any, LoadedObject] | None = None

    def observed_by(self, observer: Observer[Any, LoadedObject]) -> None:
        """Tells `observer` that the test uses this object, and later that it is closed."""
        self._observer = observer
        observer.loaded(self)

    def attach(self) -> Links:
        """Attaches every program whose section names its target, and struct_ops maps.

        The programs run until the links are closed: by ``with``, by `close`, or with this object. Raises
        `AttachError` when the kernel refuses a program (the programs before it are detached again), or when
        there is no program to attach.
        """
        if self._handle == ffi.NULL:
            raise ClosedError("cannot attach", on=self.name, why="it is closed")
        made: list[Link] = []
        try:
            for program in self.programs:
                if program.autoattach:
                    made += self._attach_default(program)
            for name in self._struct_ops:
                made.append(self._register(name))
        except BaseException:
            close_all(made)
            raise
        if not made:
            raise AttachError(
                "cannot attach",
                on=self.name,
                why="none of its sections names a target" if self.programs else "it has no program",
                fix="attach its programs one by one: " + self._examples()
                if self.programs
                else 'write a function after SEC("…"), or load another object',
                errno=errno.EOPNOTSUPP,
            )
        return Links(made)

    def _register(self, name: str) -> Link:
        """Registers a struct_ops map."""
        if self._handle == ffi.NULL:
            raise ClosedError("cannot register", on=f"map {name!r} of {self.name}", why="it is closed")
        handle = self._struct_ops[name]
        link = register_struct_ops(handle, f"map {name!r} (struct_ops)")
        link.belong_to(lib.bpf_map__fd(handle), None)
        self._links.append(link)
        return link

    def _examples(self) -> str:
        return ", ".join(ways_for(p.name, p.type, p.section) for p in self.programs)

    def _attach_default(self, program: Program) -> list[Link]:
        """Attaches a program to the target of its section; does nothing if the section names no target."""
        try:
            return [program.attach()]
        except AttachError as e:
            if not names_no_target(e):
                raise
        return []

    def close(self) -> None:
        """Detaches, unloads and closes everything that came from it. Safe to call again."""
        handle, self._handle = self._handle, ffi.NULL
        if handle == ffi.NULL:
            return
        try:
            close_all(self._links)
            if self._observer is not None:
                self._observer.closing(self)
        finally:
            forget(*self.descriptors)
            enter(self.globals, "closed")
            for each in all_of(self.maps):
                each.close()
            for program in self.programs:
                program.invalidate()
            lib.bpf_object__close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        programs, maps = (
            f"{len(part)} {name}{'s' if len(part) != 1 else ''}"
            for part, name in ((self.programs, "program"), (self.maps, "map"))
        )
        return f"<loaded {self.name}: {programs}, {maps}>"


def _make_maps(
    handles: dict[str, Any], sources: Sources, declared: Mapping[str, DeclaredTypes], pinned: PinnedMaps
) -> dict[str, Map]:
    made = {}
    for name, handle in handles.items():
        fd = created_map(handle)
        if fd < 0:
            continue  # libbpf does not create a section that this kernel does not use
        # these are type ids of the object's own BTF; libbpf may change the copy that an old kernel gets
        types, known = declared.get(name) or declared_types(handle), map_info(fd)
        info, codecs = types.applied_to(known), sources.codecs_for(name)
        if codecs is not None and not known.btf_id and kernel_fields(codecs.btf, info.btf_value_type_id):
            codecs = codecs.as_data()
        map_object = make_map(
            fd,
            info,
            codecs,
            name=name,
            owned=False,
            pins=pinned.pins,
            pinned=pinned.paths_of(name),
        )
        made[name] = cast(Map, map_object)
    return made
