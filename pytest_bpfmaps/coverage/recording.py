"""Lets the engines measure the objects of a process, and collects what they count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_bpfmaps.coverage.data import Measured
from pytest_bpfmaps.coverage.engines import ENGINES, Record, Recorder, Swap, engine
from pytest_bpfmaps.kernel.program_info import ForeignProgram
from pytest_bpfmaps.objects import LoadedObject, OpenedObject

AUTO = "auto"


class Recording:
    """The engines of this process, as an `Observer` of objects.

    `wanted` names one engine, or is ``auto`` for all. A program is measured by the first engine that can.
    `kernel` is the name of the kernel that tests run on here. With `mcdc`, engines also record the values of
    conditions, if they can.
    """

    def __init__(self, wanted: str = AUTO, kernel: str = "host", *, mcdc: bool = False) -> None:
        self.kernel = kernel
        self._recorders: dict[str, Recorder] = {}
        self._absent: dict[str, str] = {}  # engines that can't work here, and why
        self._programs: Counter[Measured] = Counter()
        self._elsewhere: set[Measured] = set()  # programs without an object in this process
        for name in ENGINES if wanted == AUTO else (wanted,):
            made = engine(name).recorder(mcdc=mcdc)
            if isinstance(made, str):
                self._absent[name] = made
            else:
                self._recorders[name] = made

    def before_load(self, opened: OpenedObject) -> Swap | None:
        """Lets an engine put another object in place of one that is about to be loaded."""
        for recorder in self._recorders.values():
            if swap := recorder.before_load(opened):
                return swap
        return None

    def loaded(self, loaded: LoadedObject) -> None:
        """Decides for each program which engine measures it."""
        reasons = dict.fromkeys((program.name for program in loaded.programs), "")
        for name, recorder in self._recorders.items():
            refused = recorder.loaded(loaded, list(reasons))
            self._count(loaded, name, {each: "" for each in reasons if each not in refused})
            reasons = {each: _both(reasons[each], f"{name}: {why}") for each, why in refused.items()}
        absent = self._why_absent()
        self._count(loaded, "", {each: _both(why, absent) for each, why in reasons.items()})

    def _why_absent(self) -> str:
        return "; ".join(f"{name}: {why}" for name, why in self._absent.items())

    def _count(self, loaded: LoadedObject, name: str, programs: Mapping[str, str]) -> None:
        self._programs.update(Measured(loaded.name, each, name, why) for each, why in programs.items())

    def closing(self, loaded: LoadedObject) -> None:
        """Tells the engines that an object is about to be closed."""
        for recorder in self._recorders.values():
            recorder.closing(loaded)

    def other_process(self, name: str, programs: Callable[[], Sequence[ForeignProgram]]) -> None:
        """Lists the programs of an agent as not measured, unless the engine ``blocks`` sees them."""
        if "blocks" not in self._recorders:
            names = [program.name for program in programs()]
            self.elsewhere(f"(loaded by {name})", names, "another process loaded it")

    def elsewhere(self, source: str, programs: Sequence[str], why: str) -> None:
        """Lists programs as not measured that belong to no object of a test. `why` is the reason.

        The engine ``blocks`` sees every program that runs, so where it works nothing is listed.
        """
        if "blocks" in self._recorders:
            return
        reason = _both("".join(f"{name}: {why}" for name in self._recorders), self._why_absent())
        found = {Measured(source, each, "", reason) for each in programs} - self._elsewhere
        self._elsewhere |= found
        self._programs.update(found)

    def take(self, test: str = "") -> dict[str, Any]:
        """Returns what was counted since the last call, as plain values.

        `test` is the id of the test that ran meanwhile; it is empty if tests are not told apart.
        """
        records = [
            Record(name, self.kernel, test, counted).to_plain()
            for name, recorder in self._recorders.items()
            for counted in recorder.take()
        ]
        programs = [[*program, loads] for program, loads in self._programs.items()]
        self._programs.clear()
        if not records and not programs:
            return {}
        return {"kernel": self.kernel, "records": records, "programs": programs}


def _both(first: str, second: str) -> str:
    return "; ".join(filter(None, (first, second)))
