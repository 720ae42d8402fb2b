"""A BPF object on its way into the kernel: opened, then loaded. Each phase is a type of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pytest_bpfmaps import events  # noqa: F401  teaches `maps` the buffer types
from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.btf.dwarf import read_local_types
from pytest_bpfmaps.compiler.legacy import upgraded, upgraded_maps
from pytest_bpfmaps.compiler.portability import tell
from pytest_bpfmaps.compiler.soundness import check_object
from pytest_bpfmaps.errors import (
    ClosedError,
    LoadError,
    NameLookupError,
    PortabilityError,
    PortabilityWarning,
    closest,
)
from pytest_bpfmaps.libbpf import capture_log, ffi, lib, opts
from pytest_bpfmaps.maps import Map
from pytest_bpfmaps.maps.arena import arenas_of
from pytest_bpfmaps.maps.kernel_btf import keeps_raw_btf, parse_codecs, raw_btf
from pytest_bpfmaps.maps.pins import Pins
from pytest_bpfmaps.named import Named, names_of
from pytest_bpfmaps.objects.linked import Sources
from pytest_bpfmaps.objects.loaded import LoadedObject
from pytest_bpfmaps.objects.map_spec import MapSpec
from pytest_bpfmaps.objects.mended import mended, unknown_members
from pytest_bpfmaps.objects.object_file import find_btf, find_kconfig, object_name, split_maps, walk
from pytest_bpfmaps.objects.struct_ops_members import without_unknown_members
from pytest_bpfmaps.paths import objects_dir
from pytest_bpfmaps.pinning import PinnedMaps
from pytest_bpfmaps.programs import ProgramSpec
from pytest_bpfmaps.refusals import explain_load, explain_no_program, explain_open
from pytest_bpfmaps.variables import Globals, Section, enter
from pytest_bpfmaps.verifier.buffers import stats_buffers


class OpenedObject:
    """An object file that libbpf has read: sizes, globals and programs can still be changed.

    `path` is the file, `name` what messages call it. Maps that the object wants pinned by name get their pins
    in the folder `pin_root`, or else in that of `pins`, which also remembers the pins that the load makes.
    `btf` is a file with the types that relocations (CO-RE) are made for, in place of the running kernel's:
    raw BTF, or an ELF file with a section ``.BTF``. Raises `LoadError` for a file that is no BPF object. What
    libbpf would refuse, and is mended here, is a `PortabilityWarning`, or with `portable` a
    `PortabilityError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        pins: Pins | None = None,
        pin_root: str | None = None,
        portable: bool = False,
        btf: Path | None = None,
    ) -> None:
        self.path = path
        self.btf = btf
        self.name = name or path.name
        if not path.is_file():
            why = "it is a folder" if path.is_dir() else "there is no such file"
            raise LoadError("cannot open", on=str(path), why=why, errno=errno.ENOENT)
        data = path.read_bytes()
        if not path.is_relative_to(objects_dir()):  # those there are fresh from clang
            check_object(data, str(path))
        upgrade = upgraded(data, self.name)
        trimmed = without_unknown_members(data if upgrade is None else upgrade)
        upgrade = trimmed.data if trimmed.members else upgrade
        name_in_kernel = ffi.new("char[]", object_name(path).encode())
        kconfig, types = find_kconfig(data), find_btf(btf)
        settings = opts(
            "bpf_object_open_opts", object_name=name_in_kernel, kconfig=kconfig, btf_custom_path=types
        )
        self._handle = handle = _open(path, upgrade, settings)
        self._codecs = _codecs_of(handle, path)
        if keeps_raw_btf(lib.bpf_object__btf(handle)):
            lib.bpf_object__close(handle)
            self._handle = ffi.NULL
            self._handle = handle = _open(path, upgrade, settings)
        maps = walk(lib.bpf_object__next_map, handle)
        user, internal = split_maps(maps)
        sections = {n: MapSpec(m) for n, m in internal.items()}
        self.maps = Named("map", self.name, {n: MapSpec(m) for n, m in user.items()}, hidden=sections)
        self._pinned = PinnedMaps(self.maps, pins, pin_root)
        programs = [ProgramSpec(p) for p in walk(lib.bpf_object__next_program, handle)]
        self.programs = Named("program", self.name, {p.name: p for p in programs})
        self._sources = Sources(path, self._codecs)
        variables = [Section(n, m) for n, m in internal.items()]
        self.globals = Globals(self.name, variables, self._codecs, self._sources.of_variables)
        self._tell_mended(upgraded_maps(data if upgrade is None else upgrade), trimmed.members, portable)

    def _tell_mended(self, legacy: list[str], members: dict[str, list[str]], portable: bool) -> None:
        findings = [
            *mended(self.path, self.name, self.maps, self.programs, legacy),
            *unknown_members(self.path, self.name, members),
        ]
        try:
            tell(findings, refuse=portable)
        except (PortabilityError, PortabilityWarning):
            self.close()
            raise

    def configure(
        self,
        *,
        globals: Mapping[str, Any] | None = None,
        max_entries: Mapping[str, int] | None = None,
        maps: Mapping[str, Mapping[str, Any]] | None = None,
        programs: Iterable[str] | Mapping[str, Mapping[str, Any]] | None = None,
        reuse: Mapping[str, Map] | None = None,
    ) -> Self:
        """Sets what `bpf.load` takes as arguments. Raises `NameLookupError` for names the object lacks."""
        for name, settings in (maps or {}).items():
            self.maps[name].configure(settings)
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
        for name in wanted - set(names_of(self.programs)):
            raise NameLookupError(
                f"no program {name!r}", on=f"in {self.name}", fix=closest(name, names_of(self.programs))
            )
        for program in self.programs:
            program.autoload = program.name in wanted
        if isinstance(programs, Mapping):
            for name, settings in programs.items():
                self.programs[name].configure(settings)

    def load(self) -> LoadedObject:
        """Creates the maps and has the verifier check the programs.

        This object is used up by it. Raises `VerifierError`, or `LoadError` with errno.
        """
        if self._handle == ffi.NULL:
            raise ClosedError("cannot load", on=self.name, why="it is closed or loaded already")
        if not len(self.programs) and (refused := explain_no_program(self, self._codecs)):
            raise refused
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
        enter(self.globals, "closed")
        declared = {m.name: m._types for m in self.maps}
        try:
            loaded = LoadedObject(handle, self.name, self._codecs, declared, self._sources)
        except BaseException:  # its BTF has what is no value, for example
            lib.bpf_object__close(handle)
            raise
        self._pinned.keep(loaded.maps)
        return loaded

    def close(self) -> None:
        """Frees what libbpf read. Safe to call again, and after `load`."""
        handle, self._handle = self._handle, ffi.NULL
        if handle != ffi.NULL:
            enter(self.globals, "closed")
            lib.bpf_object__close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<opened {self.name}>"


def _open(path: Path, data: bytes | None, settings: Any) -> Any:
    """libbpf's handle for the file, or for `data` in its place. Raises `LoadError`."""
    with capture_log() as log:
        if data is None:
            handle = lib.bpf_object__open_file(os.fsencode(path), settings)
        else:
            handle = lib.bpf_object__open_mem(ffi.from_buffer(data), len(data), settings)
        number = ffi.errno
    if handle == ffi.NULL:
        raise explain_open(path, number, log.text)
    return handle


def _codecs_of(handle: Any, path: Path) -> Codecs | None:
    def local() -> Codecs | None:
        raw = read_local_types(path)
        return parse_codecs(raw) if raw else None

    btf = lib.bpf_object__btf(handle)
    return None if btf == ffi.NULL else parse_codecs(raw_btf(btf)).with_more(local)
