"""Compares the counts of BPF programs with llvm-cov's counts for the same C as a native program."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import measured
import pytest
from caches import CACHE
from native import native_counts

from pytest_bpfmaps.coverage.counters.llvm_tools import tools_for
from pytest_bpfmaps.coverage.data import Coverage, Decision, FileCoverage
from pytest_bpfmaps.coverage.decisions import decided

COVERED = Path(__file__).parent
PROGRAMS = dict.fromkeys((*measured.SIMPLE, "callbacks", "concurrent"), measured.PACKETS)


def measure(pytester: pytest.Pytester, *arguments: str) -> Coverage:
    """Returns the counts of a run of `measured`."""
    file = pytester.path / "data.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPFMAPS_CACHE", str(CACHE))
        patch.setenv("BPF_COVERAGE_FILE", str(file))
        options = ["--bpf-cov=covered/*", "--rootdir", str(COVERED.parent), "-p", "no:cacheprovider"]
        result = pytester.runpytest_subprocess(*options, *arguments, str(COVERED / "measured.py"))
    assert result.ret == 0, result.outlines
    return Coverage.from_plain(json.loads(file.read_text()))


def verdicts(file: FileCoverage) -> dict[Any, int]:
    """Returns how many decisions have the same place, and the same verdicts of their conditions."""
    seen: dict[Decision, list[str]] = {}
    for key, count in file.decisions.items():
        seen.setdefault(key._replace(vector=""), []).extend([key.vector] * bool(count))
    return Counter(
        (key.place, tuple(decided(vectors, n) for n, _ in enumerate(key.conditions.split())))
        for key, vectors in seen.items()
    )


def check(found: Coverage, kernel: str, name: str, clang: str, tmp_path: Path, *, mcdc: bool = False) -> None:
    """Compares a kernel's counts with those of llvm-cov for a native program."""
    source = COVERED / f"{name}.bpf.c"
    tools = tools_for(clang)
    packets = PROGRAMS[name]
    times = measured.THREADS * measured.TIMES if name == "concurrent" else 1
    expected = native_counts(source, packets, tmp_path, clang, (tools.profdata, tools.cov), mcdc=mcdc)
    assert set(expected) >= {str(source)}
    for path, parts in expected.items():
        if Path(path).name == "both.h":
            continue
        mine = found.kernels[kernel].files[path]
        # a header that several programs include has the counts of all of them
        if path != str(source):
            assert parts["lines"].keys() == mine.lines.keys()
        assert {line: n * times for line, n in parts["lines"].items()} == mine.lines
        assert {key: n * times for key, n in parts["branches"].items()} == mine.branches
        assert {key: n * times for key, n in parts["functions"].items()} == mine.functions
        if path == str(source):
            assert parts["decisions"] == verdicts(mine)
