"""JSON, with the names of coverage.py's own report where the meaning is the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_bpfmaps.coverage.data import FileCoverage
from pytest_bpfmaps.coverage.decisions import sums
from pytest_bpfmaps.coverage.reports.report_file import put
from pytest_bpfmaps.coverage.view import FileView, View, percent_of


def write(view: View, target: Path) -> None:
    """Writes the file. Raises `OSError`."""
    facts = {
        "meta": {"format": 1, "kernels": view.kernels},
        "files": {file.name: _file(view, file) for file in view.files},
        "programs": [_program(view, name) for name in view.kernels],
        "totals": summary((file.total for file in view.files), mcdc=view.has_conditions),
    }
    put(target, json.dumps(facts, indent=1) + "\n")


def summary(files: Iterable[FileCoverage], *, mcdc: bool) -> dict[str, Any]:
    """Returns numbers of lines and branches, and with `mcdc` of conditions."""
    files = list(files)
    lines = [count for file in files for count in file.lines.values()]
    branches = [count for file in files for count in file.branches.values()]
    decided, conditions = sums(*files) if mcdc else (0, 0)
    of_conditions = {
        "covered_conditions": decided,
        "num_conditions": conditions,
        "missing_conditions": conditions - decided,
    }
    return {
        "covered_lines": sum(map(bool, lines)),
        "num_statements": len(lines),
        "missing_lines": lines.count(0),
        "percent_covered": percent_of(*files),
        "covered_branches": sum(map(bool, branches)),
        "num_branches": len(branches),
        "missing_branches": branches.count(0),
        **(of_conditions if mcdc else {}),
    }


def _file(view: View, file: FileView) -> dict[str, Any]:
    total = file.total
    found = {
        "executed_lines": sorted(line for line, count in total.lines.items() if count),
        "missing_lines": file.missing,
        "excluded_lines": sorted(file.excluded),
        "unreachable_lines": sorted(file.unreachable),
        "counts": {str(line): count for line, count in sorted(total.lines.items())},
        "branches": [{**key._asdict(), "count": n} for key, n in sorted(total.branches.items())],
        "functions": [{**key._asdict(), "count": n} for key, n in sorted(total.functions.items())],
        "regions": [{**key._asdict(), "count": n} for key, n in sorted(total.regions.items())],
        "summary": summary([total], mcdc=view.has_conditions),
        "kernels": {
            name: {
                "counts": {str(n): c for n, c in sorted(one.lines.items())},
                "summary": summary([one], mcdc=view.has_conditions),
            }
            for name, one in file.kernels.items()
        },
    }
    if view.has_conditions:
        found["decisions"] = [asdict(each) for each in file.decisions]
        found["unmeasured_decisions"] = [key._asdict() for key in sorted(total.unmeasured)]
    contexts = view.tests_of(file.path)
    if contexts:
        found["contexts"] = {str(line): sorted(tests) for line, tests in sorted(contexts.items())}
    return found


def _program(view: View, kernel: str) -> dict[str, Any]:
    programs = view.coverage.kernels[kernel].programs
    return {"kernel": kernel, "programs": [{**p._asdict(), "loads": n} for p, n in sorted(programs.items())]}
