"""Asks this kernel's verifier for its verdict on each program of an object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pytest_bpfmaps.errors import BpfError, NameLookupError, VerifierError
from pytest_bpfmaps.maps import MapType
from pytest_bpfmaps.objects import LoadedObject, OpenedObject
from pytest_bpfmaps.objects.instruction_places import Places
from pytest_bpfmaps.programs.program import instructions_of
from pytest_bpfmaps.programs.verifier_stats import VerifierStats
from pytest_bpfmaps.verifier import parse_log
from pytest_bpfmaps.verifier.control_flow import read_instructions
from pytest_bpfmaps.verifier.figures import Figures, read_figures
from pytest_bpfmaps.verifier.log_buffers import LEVEL_STATS

ACCEPTED, REFUSED, LOST = "accepted", "refused", "lost"
_PAGE = 4096
_BUFFERS = (MapType.RINGBUF, MapType.USER_RINGBUF, MapType.ARENA)
_NO_ENTRIES = (  # the kernel requires 0
    *(MapType.SK_STORAGE, MapType.INODE_STORAGE, MapType.TASK_STORAGE, MapType.CGRP_STORAGE),
    *(MapType.CGROUP_STORAGE, MapType.PERCPU_CGROUP_STORAGE, MapType.STRUCT_OPS),
    MapType.PERF_EVENT_ARRAY,  # libbpf fills it in
)
_WALKED = ("instructions", "total_states", "peak_states", "max_states_per_insn", "time_us")
_NO_TARGET = "failed to initialize slot"  # libbpf, of a table of tail calls whose program is not loaded


@dataclass(frozen=True)
class Verdict:
    """What a kernel says of one program of an object.

    `verdict` is ``accepted``, ``refused``, or ``lost``: the kernel gave no answer, because its guest ended.
    `program` is empty where the object as a whole can't be opened or loaded. `message` is the whole error,
    `why`, `details` and `fix` are parts of it. `file`, `line` and `text` are the C line that was refused, as
    far as it is known. A figure that the kernel does not tell is None.
    """

    object: str
    program: str
    verdict: str
    instructions: int | None = None
    total_states: int | None = None
    peak_states: int | None = None
    max_states_per_insn: int | None = None
    time_us: int | None = None
    stack_depths: Mapping[str, int] | None = None
    jited_size: int | None = None
    translated_size: int | None = None
    message: str = ""
    why: str = ""
    fix: str = ""
    file: str = ""
    line: int = 0
    text: str = ""
    details: str = ""

    def to_plain(self) -> dict[str, Any]:
        """Returns it in types that JSON has."""
        return asdict(self)


def verdicts_of(
    path: Path,
    name: str,
    values: Mapping[str, Any],
    wanted: Callable[[str], bool] = lambda _: True,
    *,
    checked: bool = False,
) -> list[Verdict]:
    """Returns the verdict on each program of the object at `path`; messages call it `name`.

    `values` are values of global variables, which are set before the load. Names that the object lacks are
    left out. `wanted` chooses programs by name. The object is loaded as a whole. If that fails, each program
    is loaded by itself, so that the failure of one does not count for the others. Nothing is pinned. With
    `checked`, the types of the object are known to be sound.
    """
    job = _Job(path, name, values, checked)
    try:
        with job.opened() as opened:
            job = replace(job, checked=True)  # opening has checked it
            names = [program.name for program in opened.programs if wanted(program.name)]
            if not names:
                return []
            for program in opened.programs:
                program.autoload = program.name in names
            with opened.load(explained=False) as loaded:
                return list(_accepted(name, loaded))
    except BpfError as error:
        if not (names := job.names(wanted)):
            return [job.refused("", error)]
    return [job.alone(each) for each in names]


@dataclass(frozen=True)
class _Job:
    """An object, and how it is loaded."""

    path: Path
    name: str
    values: Mapping[str, Any]
    checked: bool

    def plain(self) -> OpenedObject:
        """Opens the object, and sets nothing."""
        return OpenedObject(self.path, name=self.name, quiet=True, checked=self.checked)

    def names(self, wanted: Callable[[str], bool]) -> list[str]:
        """Returns the names of its programs, and none if it can't be opened."""
        try:
            with self.plain() as opened:
                return [program.name for program in opened.programs if wanted(program.name)]
        except BpfError:
            return []

    def opened(self) -> OpenedObject:
        """Opens the object, and sets what its loader would set, as veristat does.

        Maps are not pinned, and a map without a size gets the smallest.
        """
        opened = self.plain()
        try:
            for spec in opened.maps:
                spec.pin_path = None
                if spec.max_entries == 0 and spec.type not in _NO_ENTRIES:
                    spec.max_entries = _PAGE if spec.type in _BUFFERS[:2] else 1
            for variable, value in self.values.items():
                if variable in opened.globals:
                    opened.globals[variable] = value
        except BaseException:
            opened.close()
            raise
        return opened

    def alone(self, program: str) -> Verdict:
        """Returns the verdict on a program that is loaded by itself."""
        try:
            with self.opened() as opened:
                for each in opened.programs:
                    each.autoload = each.name == program
                with opened.load() as loaded:
                    (found,) = _accepted(self.name, loaded)
                    return found
        except BpfError as error:
            if _NO_TARGET in (error.details or ""):
                return self.alone_with_empty_tables(program)
            return self.refused(program, error)

    def alone_with_empty_tables(self, program: str) -> Verdict:
        """Returns the verdict on an accepted program whose tables of tail calls can't be filled.

        The programs of the tables are not loaded. libbpf fills a table when the kernel has accepted the
        program, and then gives up. The log has the figures.
        """
        with self.opened() as opened:
            _, log = opened.load_only(program, LEVEL_STATS, 1 << 16)
        said = read_figures(log)
        names = [program, *(f"func#{number}" for number in range(1, len(said.stack_depths or ())))]
        depths = None if said.stack_depths is None else dict(zip(names, said.stack_depths, strict=True))
        return Verdict(self.name, program, ACCEPTED, **_walked(said), stack_depths=depths)

    def refused(self, program: str, error: BpfError) -> Verdict:
        """Returns the verdict on a program that was refused with `error`."""
        facts: dict[str, Any] = {"message": str(error), "why": error.why or error.what}
        facts |= {"fix": error.fix or "", "details": error.details or ""}
        if isinstance(error, VerifierError):
            found = parse_log(error.log)
            facts |= {"file": found.file, "line": found.line or 0, "text": found.source}
            facts |= _walked(read_figures(error.log))
            if found.index is not None and not found.line:
                facts |= self._line_in_file(program, found.index)
        return Verdict(self.name, program, REFUSED, **facts)

    def _line_in_file(self, program: str, index: int) -> dict[str, Any]:
        """Returns the C line of an instruction from the object file; kernels before 6.10 do not name it."""
        try:
            with self.opened() as opened:
                opened.load_only(program, LEVEL_STATS, 1 << 16)
                raw = instructions_of(opened.programs[program].handle)
        except BpfError:
            return {}
        found = Places(self.path, program, read_instructions(raw)).line_of(index)
        return {} if found is None else {"file": found.file, "line": found.line, "text": found.text}


def _accepted(name: str, loaded: LoadedObject) -> Iterator[Verdict]:
    for program in loaded.programs:
        said = program.verifier
        sizes = {"jited_size": said.jited_size, "translated_size": said.translated_size}
        figures = {**_walked(said), **sizes, "stack_depths": said.stack_depths}
        yield Verdict(name, program.name, ACCEPTED, **figures)


def _walked(said: Figures | VerifierStats) -> dict[str, Any]:
    """Returns what the verifier tells of its walk, by the names that a `Verdict` has, too."""
    return {name: getattr(said, name) for name in _WALKED}


def unknown_variables(paths: Mapping[str, Path], values: Mapping[str, Any]) -> None:
    """Raises `NameLookupError` for a name that no object has as a global variable.

    `paths` has the objects by name. An object that can't be opened has none.
    """
    known: set[str] = set()
    for name, path in paths.items():
        try:
            with OpenedObject(path, name=name, quiet=True) as opened:
                known |= set(opened.globals)
        except BpfError:
            continue
    for variable in values:
        if variable not in known:
            from pytest_bpfmaps.errors import closest

            what = f"no global variable {variable!r}"
            raise NameLookupError(what, on=f"in {', '.join(paths)}", fix=closest(variable, sorted(known)))
