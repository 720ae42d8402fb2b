"""A BPF object on its way into the kernel: opened, then loaded. Each phase is a type of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from . import events  # noqa: F401  teaches `maps` the buffer types
from .attach import attach_program, names_no_target
from .attach.kinds import example_for
from .attach.struct_ops import register_struct_ops
from .btf import Codecs
from .btf.dwarf import read_local_types
from .compiler.legacy import upgraded
from .compiler.soundness import check_object
from .errors import AttachError, ClosedError, LoadError, NameLookupError, closest
from .leaks import forget, note
from .libbpf import capture_log, check, ffi, lib, opts, to_str
from .links import Link, Links, close_all
from .maps import Map, MapType, make_map, map_info
from .maps.arena import ArenaMap, arenas_of
from .maps.declared import DeclaredTypes, declared_types
from .maps.kernel_btf import parse_codecs, raw_btf
from .maps.pins import Pins
from .named import Named
from .paths import objects_dir
from .pinning import PinnedMaps, pin_path, set_pin_path
from .programs import Program, ProgramSpec
from .refusals import explain_load, explain_open
from .variables import Globals, Section
from .verifier.buffers import stats_buffers


class MapSpec:
    """A map of an object that is opened and not loaded yet."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._types = _take_types(handle)
        self.name = to_str(lib.bpf_map__name(handle))

    @property
    def type(self) -> MapType | int:
        """Its ``enum bpf_map_type``."""
        return MapType.from_number(lib.bpf_map__type(self._handle))

    def set_inner_map(self, live: Map) -> None:
        """Fixes what the inner maps of this map of maps are like: as `live`, which it does not get into.

        Raises `LoadError` for a map that is no map of maps, or that declares its inner map in C.
        """
        check(
            lib.bpf_map__set_inner_map_fd(self._handle, live.fd),
            LoadError,
            f"cannot take {live} as the inner map",
            on=f"of {self}",
            fix="give it to a map of maps that declares no inner map itself",
        )
        # ids of a BTF that is not this object's would name the wrong types
        inner = replace(live._info, btf_key_type_id=0, btf_value_type_id=0)
        self._types = replace(self._types, inner=inner)

    @property
    def max_entries(self) -> int:
        """How many elements it will hold; can be set. For a ring buffer its size in bytes."""
        return int(lib.bpf_map__max_entries(self._handle))

    @max_entries.setter
    def max_entries(self, count: int) -> None:
        what = f"cannot set max_entries={count}"
        check(lib.bpf_map__set_max_entries(self._handle, count), LoadError, what, on=f"of {self}")

    @property
    def pin_path(self) -> str | None:
        """Where the load pins it, or takes it from when it is pinned there; can be set. None: nowhere."""
        return pin_path(self._handle)

    @pin_path.setter
    def pin_path(self, path: str | os.PathLike[str] | None) -> None:
        set_pin_path(self._handle, None if path is None else os.fspath(path))

    def reuse(self, live: Map) -> None:
        """Takes a live map in place of a new one; types and sizes must agree."""
        mine = (self.type, lib.bpf_map__key_size(self._handle), lib.bpf_map__value_size(self._handle))
        theirs = (live.type, live.key_size, live.value_size)
        if mine != theirs:
            names = ("type", "key_size", "value_size")
            pairs = zip(names, mine, theirs, strict=True)
            raise LoadError(
                f"cannot reuse {live}",
                on=f"as {self}",
                why=", ".join(f"{n} is {b}, not {a}" for n, a, b in pairs if a != b),
                errno=errno.EINVAL,
            )
        if isinstance(live, ArenaMap):
            live.memory  # noqa: B018  the verifier wants to know its address
        check(
            lib.bpf_map__reuse_fd(self._handle, live.fd), LoadError, f"cannot reuse {live}", on=f"as {self}"
        )

    def __str__(self) -> str:
        return f"map {self.name!r} ({self.type})"

    __repr__ = __str__


class OpenedObject:
    """An object file that libbpf has read: sizes, globals and programs can still be changed.

    `path` is the file, `name` what messages call it. Maps that the object wants pinned by name get their pins
    in the folder `pin_root`, or else in that of `pins`, which also remembers the pins that the load makes.
    Raises `LoadError` for a file that is no BPF object.
    """

    def __init__(
        self, path: Path, *, name: str | None = None, pins: Pins | None = None, pin_root: str | None = None
    ) -> None:
        self.path = path
        self.name = name or path.name
        if not path.is_file():
            why = "it is a folder" if path.is_dir() else "there is no such file"
            raise LoadError("cannot open", on=str(path), why=why, errno=errno.ENOENT)
        data = path.read_bytes()
        if not path.is_relative_to(objects_dir()):  # those there are fresh from clang
            check_object(data, str(path))
        upgrade = upgraded(data, self.name)
        object_name = ffi.new("char[]", _object_name(path).encode())
        kconfig = _kconfig(data)
        settings = opts("bpf_object_open_opts", object_name=object_name, kconfig=kconfig)
        with capture_log() as log:
            if upgrade is None:
                handle = lib.bpf_object__open_file(os.fsencode(path), settings)
            else:
                handle = lib.bpf_object__open_mem(ffi.from_buffer(upgrade), len(upgrade), settings)
            number = ffi.errno
        if handle == ffi.NULL:
            raise explain_open(path, number, log.text)
        self._handle = handle
        self._codecs = _codecs_of(handle, path)
        maps = _walk(lib.bpf_object__next_map, handle)
        user, internal = _split_maps(maps)
        self.maps = Named("map", self.name, {n: MapSpec(m) for n, m in user.items()})
        self._pinned = PinnedMaps(self.maps, pins, pin_root)
        programs = [ProgramSpec(p) for p in _walk(lib.bpf_object__next_program, handle)]
        self.programs = Named("program", self.name, {p.name: p for p in programs})
        self.globals = Globals(self.name, [Section(n, m) for n, m in internal.items()], self._codecs)

    def configure(
        self,
        *,
        globals: Mapping[str, Any] | None = None,
        max_entries: Mapping[str, int] | None = None,
        programs: Iterable[str] | None = None,
        reuse: Mapping[str, Map] | None = None,
    ) -> Self:
        """Sets what `bpf.load` takes as arguments. Raises `NameLookupError` for names the object lacks."""
        for name, value in (globals or {}).items():
            self.globals[name] = value
        for name, count in (max_entries or {}).items():
            self.maps[name].max_entries = count
        for name, live in (reuse or {}).items():
            self.maps[name].reuse(live)
        if programs is not None:
            self._select(programs)
        return self

    def _select(self, programs: Iterable[str]) -> None:
        wanted = {programs} if isinstance(programs, str) else set(programs)
        for name in wanted - set(self.programs.names()):
            raise NameLookupError(
                f"no program {name!r}", on=f"in {self.name}", fix=closest(name, self.programs.names())
            )
        for program in self.programs:
            program.autoload = program.name in wanted

    def load(self) -> LoadedObject:
        """Creates the maps and has the verifier check the programs.

        This object is used up by it. Raises `VerifierError`, or `LoadError` with errno.
        """
        if self._handle == ffi.NULL:
            raise ClosedError("cannot load", on=self.name, why="it is closed or loaded already")
        with arenas_of(m._handle for m in self.maps):
            return self._load()

    def _load(self) -> LoadedObject:
        logs = stats_buffers({p.name: p._handle for p in self.programs})
        self._pinned.look()
        with capture_log() as log:
            result = lib.bpf_object__load(self._handle)
        if result < 0:
            try:
                raise self._pinned.explain(log.text, self.name) or explain_load(self, -result, log.text, logs)
            finally:
                self.close()
        handle, self._handle = self._handle, ffi.NULL
        self.globals._enter("closed")
        declared = {m.name: m._types for m in self.maps}
        try:
            loaded = LoadedObject(handle, self.name, self._codecs, declared)
        except BaseException:  # its BTF has what is no value, for example
            lib.bpf_object__close(handle)
            raise
        self._pinned.keep(loaded.maps)
        return loaded

    def close(self) -> None:
        """Frees what libbpf read. Safe to call again, and after `load`."""
        handle, self._handle = self._handle, ffi.NULL
        if handle != ffi.NULL:
            self.globals._enter("closed")
            lib.bpf_object__close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<opened {self.name}>"


class LoadedObject:
    """An object in the kernel: `maps`, `programs`, `globals`, each by attribute, by item, and iterable."""

    def __init__(
        self, handle: Any, name: str, codecs: Codecs | None, declared: Mapping[str, DeclaredTypes]
    ) -> None:
        self._handle = handle
        self.name = name
        self._links: list[Link] = []
        user, internal = _split_maps(_walk(lib.bpf_object__next_map, handle))
        self.maps: Named[Any] = Named(
            "map", name, _make_maps(user, codecs, declared), hidden=_make_maps(internal, codecs, {})
        )
        self._struct_ops = {n: m for n, m in user.items() if lib.bpf_map__type(m) == MapType.STRUCT_OPS}
        programs = [
            Program(p, self._links, codecs)
            for p in _walk(lib.bpf_object__next_program, handle)
            if lib.bpf_program__autoload(p)
        ]
        self.programs = Named("program", name, {p.name: p for p in programs})
        self.globals = Globals(name, [Section(n, m) for n, m in internal.items()], codecs)
        self.globals._enter("loaded")
        maps = (*self.maps, *self.maps._hidden.values())
        self._descriptors = (*(m.fd for m in maps), *(p.fd for p in programs))
        note(f"object {name}", self._descriptors)

    def attach(self) -> Links:
        """Attaches every program whose section names its target, and struct_ops maps.

        The programs run until the links are closed: by ``with``, by `close`, or with this object. Raises
        `AttachError` when one is refused (those before it are detached again) or when there is none to
        attach.
        """
        if self._handle == ffi.NULL:
            raise ClosedError("cannot attach", on=self.name, why="it is closed")
        made: list[Link] = []
        try:
            for program in self.programs:
                self._attach_default(program, made)
            for name, handle in self._struct_ops.items():
                link = register_struct_ops(handle, f"map {name!r} (struct_ops)")
                link._belongs_to(lib.bpf_map__fd(handle), None)
                made.append(link)
        except BaseException:
            close_all(made)
            raise
        if not made:
            raise AttachError(
                "cannot attach",
                on=self.name,
                why="no section of it names a target",
                fix="attach its programs one by one: " + self._examples(),
                errno=errno.EOPNOTSUPP,
            )
        self._links += made
        return Links(made)

    def _examples(self) -> str:
        return ", ".join(f"obj.programs.{p.name}.{example_for(p.type)}" for p in self.programs)

    def _attach_default(self, program: Program, made: list[Link]) -> None:
        if not lib.bpf_program__autoattach(program._handle):
            return
        try:
            link = attach_program(program._handle, str(program), program.section, program.type, {})
            link._belongs_to(program.fd, program._pins)
            made.append(link)
        except AttachError as e:
            if not names_no_target(e):
                raise

    def close(self) -> None:
        """Detaches, unloads and closes everything that came from it. Safe to call again."""
        handle, self._handle = self._handle, ffi.NULL
        if handle == ffi.NULL:
            return
        try:
            close_all(self._links)
        finally:
            forget(*self._descriptors)
            self.globals._enter("closed")
            for each in (*self.maps, *self.maps._hidden.values()):
                each.close()
            for program in self.programs:
                program._close()
            lib.bpf_object__close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<loaded {self.name}: {len(self.programs)} programs, {len(self.maps)} maps>"


def _kconfig(data: bytes) -> Any:
    """The kernel's configuration for an object with ``__kconfig`` variables, where libbpf can't find it."""
    path = os.environ.get("BPFMAPS_KERNEL_CONFIG")  # a guest's, of which /boot is the host's
    if not path or b".kconfig" not in data or not Path(path).is_file():
        return ffi.NULL
    return ffi.new("char[]", Path(path).read_bytes())


def _object_name(path: Path) -> str:
    """What the kernel shows before a data section's name: the file's name up to the first dot."""
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in path.name.split(".")[0])[:15]


def _walk(step: Any, handle: Any) -> list[Any]:
    found = []
    at = step(handle, ffi.NULL)
    while at != ffi.NULL:
        found.append(at)
        at = step(handle, at)
    return found


def _take_types(handle: Any) -> DeclaredTypes:
    """What a map declares of its types, of which libbpf forgets a part while it loads.

    A buffer's value type is its records' type; the kernel refuses a value size there, so it is taken away.
    """
    types = declared_types(handle)
    size = {MapType.RINGBUF: 0, MapType.USER_RINGBUF: 0, MapType.PERF_EVENT_ARRAY: 4}.get(
        lib.bpf_map__type(handle)
    )
    if size is not None:
        lib.bpf_map__set_key_size(handle, size)
        lib.bpf_map__set_value_size(handle, size)
    return types


def _split_maps(handles: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The program's own maps, and those that libbpf made of data sections, by the section's name."""
    user, internal = {}, {}
    for handle in handles:
        name = to_str(lib.bpf_map__name(handle))
        if lib.bpf_map__is_internal(handle):
            internal["." + name.partition(".")[2]] = handle
        else:
            user[name] = handle
    return user, internal


def _make_maps(
    handles: dict[str, Any], codecs: Codecs | None, declared: Mapping[str, DeclaredTypes]
) -> dict[str, Map]:
    made = {}
    for name, handle in handles.items():
        fd = lib.bpf_map__fd(handle)
        if fd < 0:
            continue  # libbpf leaves out a section that this kernel has no use for
        # ids of the object's own BTF; the kernel's copy may be sanitized for an old kernel
        types = declared.get(name) or declared_types(handle)
        made[name] = make_map(fd, types.applied_to(map_info(fd)), codecs, name=name, owned=False)
    return made


def _codecs_of(handle: Any, path: Path) -> Codecs | None:
    def local() -> Codecs | None:
        raw = read_local_types(path)
        return parse_codecs(raw) if raw else None

    btf = lib.bpf_object__btf(handle)
    return None if btf == ffi.NULL else parse_codecs(raw_btf(btf)).with_more(local)
