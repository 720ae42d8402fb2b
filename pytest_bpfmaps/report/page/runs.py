"""Records of runs, from which the page draws charts: a small JSON file for each run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pytest_bpfmaps.cache.stored_files import write
from pytest_bpfmaps.cost.cost_file import CostFileError, parse, text_of
from pytest_bpfmaps.cost.costs import Costs

FORMAT = 1
FOLDER = "runs"
MOST = 50  # runs of the charts, the newest
_NEWER = f"it has a newer format -> update pytest-bpfmaps, which reads formats up to {FORMAT}"


@dataclass(frozen=True)
class Run:
    """What is kept of a run.

    `begun` is the time of its start, and `seconds` is how long it took. `outcomes` has the number of tests
    by kernel and outcome; tests that are no BPF tests have an empty name. `percents` is the coverage by
    kernel, and of all kernels under an empty name.
    """

    begun: datetime
    seconds: float = 0.0
    outcomes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    percents: Mapping[str, float] = field(default_factory=dict)
    costs: Costs = field(default_factory=dict)

    def count(self, outcome: str) -> int:
        """Returns how many tests had an outcome, on all kernels."""
        return sum(counts.get(outcome, 0) for counts in self.outcomes.values())

    def text(self) -> str:
        """Returns the text of the file."""
        facts = {
            "format": FORMAT,
            "begun": self.begun.isoformat(),
            "seconds": self.seconds,
            "outcomes": self.outcomes,
            "percents": self.percents,
            "costs": text_of(self.costs).splitlines(),
        }
        return json.dumps(facts, indent=1) + "\n"

    @classmethod
    def parse(cls, path: Path, text: str) -> Self:
        """Reverses `text`. Raises `ValueError` with the reason."""
        try:
            facts = json.loads(text)
            if int(facts["format"]) > FORMAT:
                raise ValueError(_NEWER)
            return cls(
                datetime.fromisoformat(facts["begun"]).astimezone(UTC),
                float(facts["seconds"]),
                {str(kernel): _numbers(counts, int) for kernel, counts in facts["outcomes"].items()},
                _numbers(facts["percents"], float),
                parse(path, "\n".join(facts["costs"])),
            )
        except json.JSONDecodeError as e:
            raise ValueError(f"it is no JSON: {e}") from None
        except CostFileError as e:
            raise ValueError(e.why) from None
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"it is no record of a run: {type(e).__name__}: {e}") from None


def _numbers(values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    return {str(name): kind(value) for name, value in values.items()}


def earlier(folder: Path, tell: Callable[[str], None]) -> list[Run]:
    """Returns the newest records below `folder`, the oldest first. `tell` gets a sentence about the others.

    A file that can't be read stays as it is.
    """
    found, wrong = [], []
    try:
        paths = sorted((folder / FOLDER).glob("*.json"))[-MOST:]
    except OSError as e:
        tell(f"no chart has earlier runs: {folder / FOLDER} can't be read: {e.strerror}")
        return []
    for path in paths:
        try:
            found.append(Run.parse(path, path.read_text()))
        except OSError as e:
            wrong.append((path, e.strerror or str(e)))
        except ValueError as e:  # of bytes that are no UTF-8, too
            wrong.append((path, str(e)))
    if wrong:
        path, why = wrong[0]
        others = "1 other record" if len(wrong) == 2 else f"{len(wrong) - 1} other records"
        more = f"; {others} can't be read either" if len(wrong) > 1 else ""
        tell(
            f"the charts leave out an earlier run: {path} can't be read: {why}{more}\n"
            "  -> get the file back, or remove it"
        )
    return sorted(found, key=lambda run: run.begun)


def keep(folder: Path, run: Run) -> None:
    """Writes the record of a run. Raises `OSError`."""
    write(folder / FOLDER / f"{run.begun:%Y%m%dT%H%M%S.%fZ}.json", run.text())
