"""A BPF object that is opened and can be configured. Loading it makes an object of another type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from pytest_bpfmaps import events  # noqa: F401  teaches `maps` the buffer types
from pytest_bpfmaps.attach.module_functions import load_object
from pytest_bpfmaps.compiler.portability import Finding, tell
from pytest_bpfmaps.errors import (
    BpfError,
    ClosedError,
    LoadError,
    MapValueError,
    NameLookupError,
    PortabilityError,
    closest,
)
from pytest_bpfmaps.libbpf import capture_log, ffi, lib
from pytest_bpfmaps.libbpf.calls import walk
from pytest_bpfmaps.maps import Map, MapType
from pytest_bpfmaps.maps.families.arena import arenas_of
from pytest_bpfmaps.maps.pins import Pins
from pytest_bpfmaps.objects.attempt import Attempt
from pytest_bpfmaps.objects.collection import Named, items_of, names_of
from pytest_bpfmaps.objects.data_section import DataSection
from pytest_bpfmaps.objects.diagnosis.context_types import wrong_contexts
from pytest_bpfmaps.objects.diagnosis.load_errors import explain_load, explain_no_program
from pytest_bpfmaps.objects.diagnosis.unfilled_pointers import told_pointers
from pytest_bpfmaps.objects.kconfig import KconfigValue, check_options
from pytest_bpfmaps.objects.kernel_types import read_kernel_types
from pytest_bpfmaps.objects.linked_sources import Sources
from pytest_bpfmaps.objects.loaded import LoadedObject
from pytest_bpfmaps.objects.map_spec import MapSpec
from pytest_bpfmaps.objects.object_file import open_again, open_object, split_maps
from pytest_bpfmaps.objects.observer import Observer
from pytest_bpfmaps.objects.pinning import PinnedMaps
from pytest_bpfmaps.objects.repairs import misplaced, repaired, taught_sections, unknown_members
from pytest_bpfmaps.objects.reused_types import warn_of_other_types
from pytest_bpfmaps.objects.settings import Parts, check_by_name, copy_settings
from pytest_bpfmaps.objects.variables import Globals, enter, names_in
from pytest_bpfmaps.objects.walk import walk_of, whole_log
from pytest_bpfmaps.programs.program import instructions_of
from pytest_bpfmaps.programs.program_spec import ProgramSpec
from pytest_bpfmaps.verifier.log_buffers import LogBuffer, stats_buffers
from pytest_bpfmaps.verifier.walk import Walk


class OpenedObject:
    """An object file that libbpf has read: sizes, globals and programs can still be changed.

    `path` is the file, and `name` is its name in messages. Maps that are pinned by name get their pins in the
    folder `pin_root`, or else in the folder of `pins`. `pins` also keeps the pins that the load makes. `btf`
    is a file with the types that relocations (CO-RE) use in place of the running kernel's: raw BTF, or an ELF
    file with a section ``.BTF``. `kconfig` has options that replace those of the kernel's configuration, for
    ``__kconfig`` variables. `observer` is told about the load. `counting` makes an object that counts
    which of its lines run, if its sources exist; with True it also records the values of conditions (MC/DC).
    If the object has what libbpf would refuse and is repaired here, that is a `PortabilityWarning`, or with
    `portable` a `PortabilityError`; with `quiet` it is neither. With `checked`, the types of the file are
    known to be sound, and are not checked again.
    `loaded` is called with what `load` returns.
    Raises `LoadError` for a file that is not a BPF object.
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
        observer: Observer[OpenedObject, LoadedObject] | None = None,
        counting: Callable[[bool], Path] | None = None,
        quiet: bool = False,
        checked: bool = False,
        sources: Sequence[Path] = (),
        kconfig: Mapping[str, KconfigValue] | None = None,
        loaded: Callable[[LoadedObject], None] | None = None,
    ) -> None:
        self.path = path
        self._tell_loaded = loaded
        self.sources = tuple(sources)
        self.counting = counting
        self._kconfig = kconfig = dict(kconfig or {})
        self._alike = partial(OpenedObject, name=name, pins=pins, pin_root=pin_root, btf=btf, kconfig=kconfig)
        self.btf = btf
        self._observer = observer
        self.name = name or path.name
        self._file = file = open_object(path, self.name, btf, checked=checked, kconfig=kconfig)
        self._handles = user, internal = split_maps(walk(lib.bpf_object__next_map, file.handle))
        sections = {n: MapSpec(m) for n, m in internal.items()}
        self.maps = Named("map", self.name, {n: MapSpec(m) for n, m in user.items()}, hidden=sections)
        self._pinned = PinnedMaps(self.maps, pins, pin_root)
        programs = [ProgramSpec(p) for p in walk(lib.bpf_object__next_program, file.handle)]
        self.programs = Named("program", self.name, {p.name: p for p in programs})
        self._sources = Sources(path, file.codecs)
        variables = [DataSection(n, m) for n, m in internal.items()]
        self.globals = Globals(self.name, variables, file.codecs, self._sources)
        try:
            check_options(kconfig, names_in(self.globals, ".kconfig"), self.name)
        except BpfError:
            self.close()
            raise
        self._portable = portable
        self._quiet = quiet
        self._tell(self._findings())

    def _findings(self) -> Iterator[Finding]:
        content = self._file.content
        yield from repaired(self.path, self.name, self.maps, content.legacy_maps)
        yield from unknown_members(self.path, self.name, content.unknown_members)
        yield from misplaced(self.path, self.name, content.moved)
        yield from told_pointers(self.path, self.name, content.unfilled_pointers)
        yield from taught_sections(self.path, self.name, self.programs)

    def opened_alike(self, path: Path) -> OpenedObject:
        """Opens another object of the same source in the same way, with the same settings.

        It reports no findings, because this object did. Raises `BpfError` when the other object can't be
        opened, or refuses a setting.
        """
        made = self._alike(path, quiet=True, checked=path == self.path)
        try:
            copy_settings(self.parts, made.parts)
        except BaseException:
            made.close()
            raise
        return made

    @property
    def parts(self) -> Parts:
        """Its maps, its programs and its types."""
        return self.maps, self.programs, self._file.codecs

    def walked(self, name: str) -> tuple[str, Walk]:
        """Loads the program `name` alone once more, with a log of each step.

        The object is loaded already. Returns the log, and what it says. Raises `LoadError`.
        """
        raw = b""

        def load_only(level: int, size: int) -> tuple[int, str]:
            nonlocal raw
            with self.opened_alike(self.path) as twin:
                for spec, mine in zip(twin.maps, self.maps, strict=True):
                    if spec.type == MapType.ARENA:  # only one arena can be mapped at an address
                        lib.bpf_map__reuse_fd(spec.handle, lib.bpf_map__fd(mine.handle))
                result, text = twin.load_only(name, level, size)
                raw = instructions_of(twin.programs[name].handle)
            return result, text

        log = whole_log(load_only, name)
        return log, walk_of(self.path, name, raw, log)

    def load_only(self, name: str, level: int, size: int) -> tuple[int, str]:
        """Has the verifier check only the program `name`, with a log of this level and size in bytes.

        Pins nothing, and keeps nothing: close the object then. Returns the number of the error (0: none), and
        the verifier's log, or else libbpf's.
        """
        for each in self.programs:
            each.autoload = each.name == name
        for spec in items_of(self.maps).values():
            spec.pin_path = None
        read_kernel_types(self.name, self.maps, self.programs)
        buffer = LogBuffer(self.programs[name].handle, level, size)
        with arenas_of(m.handle for m in self.maps), capture_log() as log:
            result = load_object(self.handle)
        return -result, buffer.text or log.text

    @property
    def attempt(self) -> Attempt:
        """What the explanation of a refused load needs; valid until the object is closed."""
        file = self._file
        again = partial(open_again, self.path, self.name, self.btf, self._kconfig)
        return Attempt(self.path, self.name, file.handle, self.maps, self.programs, file.codecs, again)

    @property
    def handle(self) -> Any:
        """libbpf's ``struct bpf_object *``; NULL when it is closed or loaded."""
        return self._file.handle

    def _tell(self, findings: Iterable[Finding]) -> None:
        if self._quiet:
            return
        try:
            tell(findings, refuse=self._portable)
        except (PortabilityError, UserWarning):
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
        """Sets what `bpf.load` takes as arguments.

        Raises `NameLookupError` for a name that the object lacks.
        """
        by_name = {"globals": globals, "max_entries": max_entries, "maps": maps, "reuse": reuse}
        for argument, given in by_name.items():
            check_by_name(argument, given, self.name)
        for name, settings in (maps or {}).items():
            self.maps[name].configure(settings)
        for name, value in (globals or {}).items():
            self.globals[name] = value
        for name, count in (max_entries or {}).items():
            other = (maps or {}).get(name, {}).get("max_entries", count)
            if other != count:
                raise MapValueError(
                    f"cannot set max_entries={count}",
                    on=f"of {self.maps[name]}",
                    why=f"maps={{{name!r}: …}} says {other}",
                    fix="give one of them",
                )
            self.maps[name].max_entries = count
        for name, live in (reuse or {}).items():
            self.maps[name].reuse(live)
        if programs is not None:
            self._select(programs)
        return self

    def _select(self, programs: Iterable[str]) -> None:
        if not isinstance(programs, Iterable):
            check_by_name("programs", programs, self.name)
        wanted = {programs} if isinstance(programs, str) else set(programs)
        for name in wanted - set(names_of(self.programs)):
            raise NameLookupError(
                f"no program {name!r}", on=f"in {self.name}", fix=closest(name, names_of(self.programs))
            )
        settings_of = programs.values() if isinstance(programs, Mapping) else ()
        only_leaves_out = bool(settings_of) and all(s.get("autoload") is False for s in settings_of)
        for program in () if only_leaves_out else self.programs:
            program.autoload = program.name in wanted
        if isinstance(programs, Mapping):
            for name, settings in programs.items():
                self.programs[name].configure(settings)

    def load(self, *, explained: bool = True) -> LoadedObject:
        """Creates the maps and loads the programs, which the verifier checks.

        The opened object can't be used afterwards. Raises `VerifierError`, or `LoadError` with errno. If
        `explained` is False, the error does not say the cause, which takes time to find.
        """
        if self.handle == ffi.NULL:
            raise ClosedError("cannot load", on=self.name, why="it is closed or loaded already")
        if not len(self.programs) and (refused := explain_no_program(self.attempt)):
            raise refused
        # for programs that were chosen since it was opened; the others were reported then
        self._tell(taught_sections(self.path, self.name, self.programs))
        self._tell(wrong_contexts(self.path, self.name, self.programs, self._file.codecs))
        read_kernel_types(self.name, self.maps, self.programs)
        swap = None if self._observer is None else self._observer.before_load(self)
        with arenas_of(m.handle for m in self.maps):
            loaded = self._load(explained=explained)
        if swap is not None:
            loaded = swap(loaded)
        if self._observer is not None:
            loaded.observed_by(self._observer)
        if self._tell_loaded is not None:
            self._tell_loaded(loaded)
        return loaded

    def _load(self, *, explained: bool) -> LoadedObject:
        logs = stats_buffers({p.name: p.handle for p in self.programs})
        self._pinned.look()
        with capture_log() as log:
            result = load_object(self.handle)
        if result < 0:
            try:
                if not explained:
                    raise LoadError("cannot load", on=self.name, errno=-result)
                raise self._pinned.explain(log.text, self.name) or explain_load(
                    self.attempt, -result, log.text, logs
                )
            finally:
                self.close()
        handle, self._file.handle = self._file.handle, ffi.NULL
        enter(self.globals, "closed")
        declared = {m.name: m.declared for m in self.maps}
        try:
            said = {name: buffer.text for name, buffer in logs.items()}
            loaded = LoadedObject(
                handle,
                self.name,
                self._file.codecs,
                declared,
                self._sources,
                handles=self._handles,
                logs=said,
                pinned=self._pinned,
                again=self.walked,
            )
        except BaseException:  # for example a type in its BTF that a value can't have
            lib.bpf_object__close(handle)
            raise
        for program in loaded.programs:
            function, other = self.programs[program.name].target or ("", None)
            if other is None:
                program.loaded_for(function)
        self._pinned.keep(loaded.maps)
        self._compare_types(loaded)
        return loaded

    def _compare_types(self, loaded: LoadedObject) -> None:
        """Warns of live maps that it reuses, whose types differ from those of its source."""
        if self._quiet or self._file.codecs is None:
            return
        for spec in self.maps:
            if spec.name in loaded.maps and (spec.reused is not None or self._pinned.was_there(spec.name)):
                what = f"{spec} of {self.name}"
                warn_of_other_types(loaded.maps[spec.name].fd, what, spec.declared, self._file.codecs)

    def close(self) -> None:
        """Frees what libbpf read. Safe to call again, and after `load`."""
        if self._file.handle != ffi.NULL:
            enter(self.globals, "closed")
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<opened {self.name}>"
