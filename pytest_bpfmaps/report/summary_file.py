"""Writes the results of a run on kernels into a file: as JSON, or as Markdown for GitHub's step summary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_LONGEST = 300  # characters of a reason in Markdown


@dataclass(frozen=True)
class Summary:
    """The results of a run. A test has its id without the kernel.

    `kernels` maps a kernel's name to its release, `files` a file to its rows' cells, `tests` a test to its
    outcome on each kernel, and `reasons` a test to why it failed or was skipped on a kernel. `missing` maps
    a feature to the tests that lacked it and their kernels. `legend` explains the letters of the table.
    `never_ran` are tests that ran on no kernel.
    """

    kernels: Mapping[str, str]
    files: Mapping[str, Mapping[str, Counter[str]]]
    tests: Mapping[str, Mapping[str, str]]
    reasons: Mapping[str, Mapping[str, str]]
    missing: Mapping[str, Mapping[str, Sequence[str]]]
    legend: str
    differences: Sequence[str]
    never_ran: Sequence[str]

    def write(self, path: Path, rows: Sequence[Sequence[str]]) -> None:
        """Writes JSON to a path that ends in ``.json``; else appends Markdown with the table `rows`."""
        if path.suffix == ".json":
            facts = dict(vars(self))
            facts["releases"] = self.kernels
            del facts["legend"]
            facts["kernels"] = list(self.kernels)
            path.write_text(json.dumps(facts, indent=1) + "\n")
            return
        with path.open("a") as file:  # GitHub's step summary is a file to append to
            file.write("\n".join(self._markdown(rows)) + "\n")

    def _markdown(self, rows: Sequence[Sequence[str]]) -> Iterator[str]:
        yield f"### BPF tests: {self._totals()}"
        yield ""
        table = [["tests", *self.kernels], ["---"] * (len(self.kernels) + 1), *rows]
        yield from ("| " + " | ".join(cell or " " for cell in row) + " |" for row in table)
        yield ""
        releases = (f"; {name} is {release}" for name, release in self.kernels.items() if release)
        yield f"{self.legend}{''.join(releases)}"
        yield from _section("Failed", self._failures())
        yield from _section("Ran on no kernel", (f"`{test}`" for test in self.never_ran))
        yield from _section("Missing features", self._missing())

    def _totals(self) -> str:
        counts = Counter(outcome for outcomes in self.tests.values() for outcome in outcomes.values())
        order = ("failed", "passed", "skipped")
        return ", ".join(f"{counts[outcome]} {outcome}" for outcome in order if counts[outcome])

    def _failures(self) -> Iterator[str]:
        """Gives a line for each reason that a test failed for, with the kernels that have it."""
        for test, outcomes in self.tests.items():
            passed = [kernel for kernel, outcome in outcomes.items() if outcome == "passed"]
            by_reason: dict[str, list[str]] = {}
            for kernel, outcome in outcomes.items():
                if outcome == "failed":
                    by_reason.setdefault(self.reasons.get(test, {}).get(kernel, ""), []).append(kernel)
            for reason, kernels in by_reason.items():
                others = f" (passed on {', '.join(passed)})" if passed else ""
                yield f"`{test}` on {', '.join(kernels)}{others}: {escape(reason[:_LONGEST], quote=False)}"

    def _missing(self) -> Iterator[str]:
        for feature, places in self.missing.items():
            count = len(places)
            kernels = dict.fromkeys(kernel for kernels in places.values() for kernel in kernels)
            tests = "1 test" if count == 1 else f"{count} tests"
            yield f"{escape(feature, quote=False)}: {tests} ({', '.join(kernels)})"


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    listed = [f"- {line}" for line in lines]
    if listed:
        yield from ("", f"**{title}**", "", *listed)
