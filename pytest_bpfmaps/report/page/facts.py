"""What the page shows of kernels, skips, and costs, in the shape that the templates take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pytest_bpfmaps.cost.comparison import NAMES
from pytest_bpfmaps.cost.costs import ACCEPTED, NO_VARIANT, Cost, Costs, Key, in_order, numbers_of
from pytest_bpfmaps.report.kernel_table import FAILED, PASSED, SKIPPED
from pytest_bpfmaps.report.page.charts import LineChart, line_chart, spark
from pytest_bpfmaps.report.page.runs import Run
from pytest_bpfmaps.report.summary_file import Summary
from pytest_bpfmaps.verifier.figures import INSTRUCTIONS_LIMIT

MOST_CHARTS = 12
_MARKS = {PASSED: "✓", FAILED: "F", SKIPPED: "s"}


@dataclass(frozen=True)
class TestFile:
    """A test file: its counts by kernel, and its tests.

    `rows` are tests that did not pass on all kernels, with a mark for each kernel. `passed` are the others.
    """

    number: int
    name: str
    counts: Mapping[str, Counter[str]]
    rows: Sequence[tuple[str, Sequence[str]]]
    passed: Sequence[str]

    @property
    def fails(self) -> bool:
        """Whether any of its tests failed."""
        return any(count[FAILED] for count in self.counts.values())

    @property
    def is_fine(self) -> bool:
        """Whether all its tests passed."""
        return not any(count[FAILED] or count[SKIPPED] for count in self.counts.values())


def test_files(summary: Summary) -> list[TestFile]:
    """Returns the files; those with failures come first, then those with skipped tests."""
    tests: dict[str, list[str]] = {}
    for test in summary.tests:
        tests.setdefault(test.partition("::")[0], []).append(test)

    def place(name: str) -> tuple[bool, bool, str]:
        counts = summary.files[name].values()
        return not any(c[FAILED] for c in counts), not any(c[SKIPPED] for c in counts), name

    names = sorted(tests, key=place)
    return [_file(number, name, tests[name], summary) for number, name in enumerate(names, 1)]


def _file(number: int, name: str, tests: Sequence[str], summary: Summary) -> TestFile:
    rows, passed = [], []
    for test in tests:
        outcomes = summary.tests[test]
        shown = test.partition("::")[2] or test
        if all(outcomes.get(kernel) == PASSED for kernel in summary.kernels):
            passed.append(shown)
        else:
            rows.append((shown, [_MARKS.get(outcomes.get(kernel, ""), "") for kernel in summary.kernels]))
    return TestFile(number, name, summary.files[name], rows, passed)


@dataclass(frozen=True)
class Skip:
    """Why tests were skipped: a feature that kernels lack, or another reason."""

    why: str
    tests: Sequence[tuple[str, Sequence[str]]]

    @property
    def kernels(self) -> list[str]:
        """Returns the kernels on which any test was skipped for it."""
        return list(dict.fromkeys(kernel for _, kernels in self.tests for kernel in kernels))


def skips(summary: Summary, others: Mapping[str, str]) -> tuple[list[Skip], list[Skip]]:
    """Returns skips by feature, and skips by other reasons, what most tests lack first.

    `others` are tests that are no BPF tests, with their reasons.
    """
    by_reason: dict[str, dict[str, list[str]]] = {}
    lacking = {
        (test, kernel) for places in summary.missing.values() for test in places for kernel in places[test]
    }
    for test, outcomes in summary.tests.items():
        for kernel, outcome in outcomes.items():
            if outcome == SKIPPED and (test, kernel) not in lacking:
                why = summary.reasons.get(test, {}).get(kernel, "")
                by_reason.setdefault(why, {}).setdefault(test, []).append(kernel)
    for test, why in others.items():
        by_reason.setdefault(why, {}).setdefault(test, [])
    return _most_first(summary.missing), _most_first(by_reason)


def _most_first(found: Mapping[str, Mapping[str, Sequence[str]]]) -> list[Skip]:
    made = [Skip(why, list(places.items())) for why, places in found.items()]
    return sorted(made, key=lambda skip: (-len(skip.tests), skip.why))


@dataclass(frozen=True)
class CostRow:
    """The cost of a program on kernels where it is the same. `share` is its part of the largest, in percent.

    `limit` is its part of the verifier's limit, in percent. `points` are a small line over the runs, and
    `change` says what became of the figure since the run before.
    """

    program: str
    object: str
    kernels: Sequence[str]
    cost: Cost
    share: float
    limit: float
    points: str
    change: str
    is_first: bool = True


def cost_rows(costs: Costs, runs: Sequence[Run], kernels: Sequence[str]) -> list[list[CostRow]]:
    """Returns the programs, the dearest first: a row for each figure that kernels do not share.

    Kernels have the order of `kernels`.
    """
    order = {kernel: place for place, kernel in enumerate(kernels)}
    most = max((cost.figures.get("insns", 0) for cost in costs.values()), default=0) or 1
    programs: dict[tuple[str, str, str], list[Key]] = {}
    for key in sorted(in_order(costs), key=lambda key: order.get(key.kernel, len(order))):
        programs.setdefault(key[:3], []).append(key)
    made = [list(_rows_of(keys, costs, runs, most)) for keys in programs.values()]
    return sorted(made, key=lambda rows: -max(row.cost.figures.get("insns", 0) for row in rows))


def _rows_of(keys: Sequence[Key], costs: Costs, runs: Sequence[Run], most: int) -> Iterator[CostRow]:
    same: dict[tuple[object, ...], list[Key]] = {}
    for key in keys:
        cost, past = costs[key], tuple(_past(key, runs))
        same.setdefault((cost.verdict, *cost.figures.items(), cost.stack, past), []).append(key)
    for at, group in enumerate(same.values()):
        first = group[0]
        walked = costs[first].figures.get("insns", 0)
        over_runs = _past(first, runs)
        yield CostRow(
            program_name(first),
            first.object,
            [key.kernel for key in group],
            costs[first],
            100 * walked / most,
            100 * walked / INSTRUCTIONS_LIMIT,
            spark(over_runs),
            _change(over_runs),
            at == 0,
        )


def _past(key: Key, runs: Sequence[Run]) -> list[float | None]:
    """Returns the instructions of a program in each run; None where it was not loaded, or refused."""
    found = (run.costs.get(key) for run in runs)
    return [None if cost is None or cost.verdict != ACCEPTED else cost.figures.get("insns") for cost in found]


def _change(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2 or values[-1] is None:
        return ""
    before, now = known[-2:]
    if before == now:
        return "="
    return f"{(now - before) / before:+.1%}" if before else f"{now - before:+,.0f}"


def program_name(key: Key) -> str:
    """Returns the name of a program, with that of its variant."""
    return key.program if key.variant == NO_VARIANT else f"{key.program} [{key.variant}]"


def cost_charts(costs: Costs, runs: Sequence[Run]) -> tuple[list[LineChart], int]:
    """Returns charts of the programs whose instructions changed most, and how many programs changed."""
    programs: dict[tuple[str, str, str], dict[str, list[float | None]]] = {}
    for key in sorted(costs, key=lambda key: numbers_of(key.kernel)):
        programs.setdefault(key[:3], {})[key.kernel] = _past(key, runs)
    changed = {name: series for name, series in programs.items() if _spread(series) > 0}
    chosen = sorted(changed, key=lambda name: (-_spread(changed[name]), name))[:MOST_CHARTS]
    labels = [when(run.begun) for run in runs]
    made = []
    for name in chosen:
        key = Key(*name, "")
        title = f"{program_name(key)} of {key.object}"
        made.append(line_chart(title, labels, _with_values(changed[name]), _count))
    return made, len(changed)


def _with_values(series: Mapping[str, Sequence[float | None]]) -> dict[str, Sequence[float | None]]:
    return {name: values for name, values in series.items() if any(v is not None for v in values)}


def _spread(series: Mapping[str, Sequence[float | None]]) -> float:
    """Returns by which share the figures of a kernel differ at most over the runs."""
    known = ([value for value in values if value is not None] for values in series.values())
    return max(((max(values) - min(values)) / (max(values) or 1) for values in known if values), default=0.0)


def percent_chart(runs: Sequence[Run], kernels: Sequence[str]) -> LineChart | None:
    """Returns the chart of the coverage; None where fewer than two runs measured it."""
    measured = [run for run in runs if run.percents]
    if len(measured) < 2:
        return None
    names = {"all": "", **({kernel: kernel for kernel in kernels} if len(kernels) > 1 else {})}
    series = {name: [run.percents.get(key) for run in measured] for name, key in names.items()}
    labels = [when(run.begun) for run in measured]
    return line_chart("Lines that ran", labels, _with_values(series), lambda value: f"{value:.1f} %")


def _count(value: float) -> str:
    return f"{value:,.0f}"


def when(time: datetime) -> str:
    """Returns a time for a reader, in UTC."""
    return f"{time.day} {time:%b %Y %H:%M}"


FIGURES = {name: NAMES[name] for name in ("insns", "states", "peak", "stack", "translated")}
