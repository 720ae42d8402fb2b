"""Records what each program of a process costs, and each variant of its object: an `Observer` of objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_bpfmaps.cost.costs import (
    ACCEPTED,
    INLINE,
    NO_VARIANT,
    REFUSED,
    Cost,
    Costs,
    Key,
    add,
    object_name,
)
from pytest_bpfmaps.cost.variants import Variants
from pytest_bpfmaps.errors import BpfError, VerifierError, closest
from pytest_bpfmaps.kernel.program_info import ForeignProgram
from pytest_bpfmaps.kernel.release import is_emulated
from pytest_bpfmaps.objects import LoadedObject, OpenedObject
from pytest_bpfmaps.objects.collection import items_of
from pytest_bpfmaps.objects.observer import Observer
from pytest_bpfmaps.programs.program import Program
from pytest_bpfmaps.verifier.figures import read_figures
from pytest_bpfmaps.verifier.walk import LineCost

_MOST_STEPS, _MOST_EMULATED = 500_000, 50_000  # the verifier's log of more steps would take many seconds


class Recorder(Observer[OpenedObject, LoadedObject]):
    """Keeps the costs until `take` is called.

    `kernel` is the name of the kernel of this process; it may be set later. `variants` are for every object
    that has their globals, and `of_test` are the variants of the test that runs. A program for which
    `wants_lines` returns true is loaded once more, to see what its lines cost. The names of sources are
    relative to the folder `root`. Objects of C text have no source: their name is `test`, the test that runs.
    """

    def __init__(
        self,
        kernel: str,
        variants: Variants,
        wants_lines: Callable[[Key, Cost], bool] = lambda *_: False,
        *,
        root: Path | None = None,
    ) -> None:
        self.of_test: Variants = {}
        self.test = ""
        self.kernel, self._variants, self._root = kernel, variants, root
        self._wants_lines = wants_lines
        self._dearest: Costs = {}  # the highest cost of each program so far, without lines
        self._opened: OpenedObject | None = None
        self._costs: Costs = {}
        self._notes: dict[str, None] = {}
        self._missing: dict[str, str] = {}  # variants of the test that no object fits so far, and why

    def before_load(self, opened: OpenedObject) -> None:
        """Keeps the object, so that its variants are opened with the same settings."""
        self._opened = opened

    def loaded(self, loaded: LoadedObject) -> None:
        """Records the programs of an object, then its variants."""
        opened, self._opened = self._opened, None
        if opened is None:
            return
        known_as = self._name(opened)
        for program in loaded.programs:
            self._add(known_as, program, NO_VARIANT)
        for name, values in {**self._variants, **self.of_test}.items():
            absent = [variable for variable in values if variable not in opened.globals]
            if not absent:
                self._missing.pop(name, None)
                self.of_test.pop(name, None) if name not in self._variants else None
                self._variant(opened, name, values, [program.name for program in loaded.programs])
            elif name in self.of_test:
                known = closest(absent[0], list(opened.globals))
                self._missing[name] = f"{loaded.name} has no global {absent[0]!r} -> {known}"

    def closing(self, loaded: LoadedObject) -> None:
        """Does nothing: the costs are known since the load."""

    def other_process(self, name: str, programs: Callable[[], Sequence[ForeignProgram]]) -> None:
        """Records the programs of an agent, as far as the kernel tells what they cost."""
        for program, info in programs():
            known = {"insns": info.instructions, "translated": info.translated_size}
            figures = {figure: value for figure, value in known.items() if value}
            if figures:
                cost = Cost(ACCEPTED, figures, why_no_lines="no lines: another process loaded it")
                add(self._costs, Key(name, program, NO_VARIANT, self.kernel), cost)
            if not info.instructions:
                self._note(f"{name}: the instructions of an agent's programs are unknown before Linux 5.16")

    def _name(self, opened: OpenedObject) -> str:
        if opened.name == INLINE and self.test:
            return self.test
        return object_name(opened.name, opened.sources, self._root)

    def _add(self, name: str, program: Program, variant: str) -> None:
        key = Key(name, program.name, variant, self.kernel)
        cost = cost_of(program)
        if add(self._dearest, key, cost) and self._wants_lines(key, cost):
            cost = with_lines(cost, program)
        add(self._costs, key, cost)

    def _variant(
        self, opened: OpenedObject, name: str, values: Mapping[str, Any], programs: list[str]
    ) -> None:
        try:
            self._load(opened, name, values, programs)
        except BpfError as error:
            if len(programs) > 1:
                for program in programs:
                    self._variant(opened, name, values, [program])
                return
            if isinstance(error, VerifierError):
                figures = read_figures(error.log)
                walked = {} if figures.instructions is None else {"insns": figures.instructions}
                key = Key(self._name(opened), programs[0], name, self.kernel)
                add(self._costs, key, Cost(REFUSED, walked))
            self._note(f"variant {name!r}: {error}")

    def _load(self, opened: OpenedObject, name: str, values: Mapping[str, Any], programs: list[str]) -> None:
        with opened.opened_alike(opened.path) as twin:
            for spec in items_of(twin.maps).values():
                spec.pin_path = None
            for variable, value in values.items():
                twin.globals[variable] = value
            for program in twin.programs:
                program.autoload = program.name in programs
            with twin.load() as loaded:
                for each in loaded.programs:
                    self._add(self._name(opened), each, name)

    def _note(self, text: str) -> None:
        self._notes[f"[{self.kernel}] {text}"] = None

    def take(self, test: str = "") -> dict[str, Any]:
        """Returns what was recorded since the last call, as plain values; `test` is the test that ran.

        Objects of C text have no name. They get the test's.
        """
        for name, why in self._missing.items():
            self._note(f"variant {name!r} of {test} was not recorded: {why}")
        rows = [
            [test if key.object == INLINE and test else key.object, *key[1:], *plain(cost)]
            for key, cost in self._costs.items()
        ]
        notes = list(self._notes)
        self._costs, self._notes, self._missing = {}, {}, {}
        return {"rows": rows, "notes": notes} if rows or notes else {}


def cost_of(program: Program) -> Cost:
    """Returns the cost of a program that was accepted.

    The size of the machine code is left out: it depends on addresses, and so differs from load to load.
    """
    said, _, translated = program.figures()
    figures = {
        "insns": said.instructions,
        "states": said.total_states,
        "peak": said.peak_states,
        "max_states_per_insn": said.max_states_per_insn,
        "translated": translated,
    }
    known = {name: value for name, value in figures.items() if value is not None}
    return Cost(ACCEPTED, known, said.stack_depths or ())


def with_lines(cost: Cost, program: Program) -> Cost:
    """Returns the cost of a program with all its lines, or with why they are not known."""
    steps, most = cost.figures.get("insns", 0), _MOST_EMULATED if is_emulated() else _MOST_STEPS
    if steps > most:
        why = f"no lines: a log of {steps:,} steps takes long; program.verifier.lines has them"
        return replace(cost, why_no_lines=why)
    try:
        return replace(cost, lines=program.verifier.walk.lines)
    except BpfError as error:
        return replace(cost, why_no_lines=str(error))


def plain(cost: Cost) -> tuple[Any, ...]:
    """Returns a cost in plain types, which a report can carry from a worker."""
    lines = [[line.file, line.line, line.text, line.instructions, line.function] for line in cost.lines]
    return cost.verdict, dict(cost.figures), list(cost.stack), lines, cost.why_no_lines


def add_plain(costs: Costs, rows: Iterable[Any], accept: Callable[[str], bool] = lambda _: True) -> None:
    """Adds the rows of `Recorder.take`. Raises ValueError or TypeError for other values."""
    for name_of_object, program, variant, kernel, verdict, figures, stack, lines, why_no_lines in rows:
        key = Key(str(name_of_object), str(program), str(variant), str(kernel))
        numbers = {str(name): int(value) for name, value in figures.items()}
        if accept(key.kernel):
            stacks, costs_of_lines = tuple(map(int, stack)), tuple(_line(*line) for line in lines)
            add(costs, key, Cost(str(verdict), numbers, stacks, costs_of_lines, str(why_no_lines)))


def _line(file: Any, number: Any, text: Any, instructions: Any, function: Any) -> LineCost:
    return LineCost(str(file), int(number), str(text), int(instructions), str(function))
