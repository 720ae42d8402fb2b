"""Shows programs of a failing test: how often each ran, and where it is attached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pytest_bpfmaps.errors import BpfError
from pytest_bpfmaps.kernel.bpf_types import MapType, ProgramType
from pytest_bpfmaps.kernel.run_counts import STATISTICS
from pytest_bpfmaps.report.folded_lines import folded

_NO_RUN = "did not run"
_WIDTH = 100  # characters of a target
_UNCOUNTED = "lsm_cgroup"  # its trampoline does not count (__bpf_prog_enter_lsm_cgroup, Linux 6.0)
_NOT_ATTACHED = frozenset({ProgramType.STRUCT_OPS, ProgramType.SYSCALL})  # by a link of their own

Runs = Mapping[Any, int]
"""How often programs had run, by program."""


def runs_of(objects: Iterable[Any]) -> Runs:
    """Returns how often each program of these objects has run so far."""
    found: dict[Any, int] = {}
    if STATISTICS.are_on:
        for program in (program for each in objects for program in each.programs):
            try:
                found[program] = program.counted_runs
            except (BpfError, OSError):  # its object is closed
                continue
    return found


def program_lines(loaded: Any, before: Runs) -> Iterator[str]:
    """Gives a line about each program of an object. Many programs that did nothing share one.

    `before` has the runs before the test, of programs that were loaded before it.
    """
    try:
        has_tail_calls = any(each.type is MapType.PROG_ARRAY for each in loaded.maps)
        runs = {each: _runs(each, before, has_tail_calls=has_tail_calls) for each in loaded.programs}
        places = {each: _places(each) for each in loaded.programs}
    except (BpfError, OSError):  # the object is closed
        return
    idle = [each for each in runs if runs[each] == _NO_RUN and not places[each]]
    lines = {each: [f"{each}: {_sentence(each, runs[each], places[each])}"] for each in runs}
    yield from folded(lines, idle, f"programs of {loaded.name} did not run, and are not attached")


def _runs(program: Any, before: Runs, *, has_tail_calls: bool) -> str:
    """Returns how often a program ran; empty if the kernel did not count."""
    if not STATISTICS.are_on or program.type is ProgramType.EXT or program.section.startswith(_UNCOUNTED):
        return ""
    count = program.counted_runs - before.get(program, 0)
    if count:
        return f"ran {count:,} times" if count > 1 else "ran once"
    return "did not run, unless by a tail call: the kernel counts none" if has_tail_calls else _NO_RUN


def _places(program: Any) -> str:
    """Returns where a program is attached, or else was; a ``with`` block has ended when a test has failed."""
    for ended, verb in ((False, "attached"), (True, "was attached")):
        if places := program.targets(ended=ended):
            short = [each if len(each) <= _WIDTH else f"{each[: _WIDTH - 1]}…" for each in places]
            named = "; ".join(dict.fromkeys(filter(None, short)))
            return f"{verb} by {named}" if named else verb
    return ""


def _sentence(program: Any, runs: str, places: str) -> str:
    missing = "not attached" if runs.startswith(_NO_RUN) and program.type not in _NOT_ATTACHED else ""
    return ", ".join(each for each in (runs, places or missing) if each) or "not attached"
