"""Tests what pytest-benchmark gets of `bpf_benchmark`, and what is shown where it is old or off."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps.report.benchmark_storage import INSTRUCTIONS, TIMES, figures_of
from pytest_bpfmaps.report.benchmark_table import lines, parsed

PLUGINS = Path(sys.prefix, "other-plugins")
OPTIONS = ("-p", "no:cacheprovider", "--benchmark-storage=kept")
SUITE = """
    import json

    def test_measured(request):
        figures = {"program": "one", "ns": 20.0, "spread": 0.1, "runs": 300, "samples": [20, 30, 10],
                   "instructions": COUNT}
        request.node.user_properties.append(("bpf_benchmark", json.dumps(figures)))
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A test that has told figures as the fixture does; test_benchmark.py has the fixture."""
    if not (PLUGINS / "pytest_benchmark").is_dir():
        pytest.skip("ci/setup puts other plugins into .venv/other-plugins")
    folder = pytester.path / "plugins"
    folder.mkdir()
    for each in PLUGINS.iterdir():
        if each.name.startswith(("pytest_benchmark", "cpuinfo", "py_cpuinfo")):
            shutil.copytree(each, folder / each.name)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return pytester


def run(suite: pytest.Pytester, *options: str, count: int = 74) -> pytest.RunResult:
    suite.makepyfile(test_suite=SUITE.replace("COUNT", str(count)))
    result = suite.runpytest_subprocess(*OPTIONS, *options)
    result.assert_outcomes(passed=1)
    return result


def test_figures_are_stored_and_compared(suite: pytest.Pytester) -> None:
    result = run(suite, "--benchmark-autosave")
    assert "BPF benchmarks" not in result.stdout.str()
    (path,) = suite.path.glob("kept/*/0001_*.json")
    times, counts = json.loads(path.read_text())["benchmarks"]
    assert (times["fullname"], times["group"]) == ("test_suite.py::test_measured: one", TIMES)
    assert times["name"] == "test_measured: one"
    assert times["stats"]["rounds"] == 3
    assert times["stats"]["iterations"] == 100
    assert times["stats"]["median"] == pytest.approx(20e-9)
    assert (times["stats"]["min"], times["stats"]["max"]) == pytest.approx((10e-9, 30e-9))
    assert counts["group"] == INSTRUCTIONS
    assert counts["stats"]["min"] == pytest.approx(74e-9)
    assert counts["extra_info"] == {
        "program": "one",
        "ns": 20.0,
        "spread": 0.1,
        "runs": 300,
        "instructions": 74,
    }

    same = run(suite, "--benchmark-compare", "--benchmark-compare-fail=min:0%")
    same.stdout.fnmatch_lines(["*test_measured: one, instructions (NOW)*74.0000*"])
    assert same.ret == 0
    suite.makepyfile(test_suite=SUITE.replace("COUNT", "75"))
    more = suite.runpytest_subprocess(*OPTIONS, "--benchmark-compare", "--benchmark-compare-fail=min:0%")
    assert more.ret != 0  # pytest-benchmark raises an error in the summary
    more.stderr.fnmatch_lines(
        ["*one, instructions *- Field 'min' has failed PercentageRegressionCheck: 1.35*"]
    )


def test_with_workers(suite: pytest.Pytester) -> None:
    result = run(suite, "-n1", "--benchmark-autosave")
    (path,) = suite.path.glob("kept/*/0001_*.json")
    assert len(json.loads(path.read_text())["benchmarks"]) == 2
    result.stdout.fnmatch_lines(["*benchmark 'BPF programs': 1 tests*"])


def test_turned_off(suite: pytest.Pytester) -> None:
    result = run(suite, "--benchmark-disable", "--benchmark-autosave")
    assert list(suite.path.glob("kept/*/*.json")) == []
    result.stdout.fnmatch_lines(["*BPF benchmarks*", "test_suite.py::test_measured  one*20*74"])


def test_an_old_release(suite: pytest.Pytester) -> None:
    (information,) = suite.path.glob("plugins/pytest_benchmark-*/METADATA")
    lines = information.read_text().splitlines()
    lines = ["Version: 3.4.1" if line.startswith("Version:") else line for line in lines]
    information.write_text("\n".join(lines))
    result = run(suite, "--benchmark-autosave")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "test_suite.py::test_measured  one*20*74",
            "pytest-benchmark 3.4.1 is too old to take the figures of bpf_benchmark",
            "  -> pip install 'pytest-benchmark>=4.0'",
        ]
    )


def test_what_a_guest_tells_may_be_anything() -> None:
    wrong = ["[]", "{", '{"samples": "many", "instructions": "74"}', '{"samples": [null], "runs": {}}']
    wrong += ['{"samples": [1e999, NaN], "runs": 1e999}', f'{{"instructions": {10**400}}}', "[" * 100_000]
    assert list(figures_of([("t", text) for text in wrong])) == []
    shown = lines([("t", parsed(text) or {}) for text in wrong])
    assert shown[1:] == ["t     None              ?       ?     ?             ?"] * len(wrong)


def test_a_program_that_is_measured_twice_has_two_names() -> None:
    text = json.dumps({"program": "one", "instructions": 5})
    names = [figure.fullname for figure in figures_of([("a.py::t", text), ("a.py::t", text)])]
    assert names == ["a.py::t: one, instructions", "a.py::t: one (2), instructions"]
