"""Tests ``--bpf-cov`` when an option is wrong, or a tool, a folder or a source is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from coverage_suite import TESTS, measured_suite, run

pytestmark = pytest.mark.bpf_requires("xdp")


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    return measured_suite(pytester, monkeypatch)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--bpf-cov-engine=guess", "--bpf-cov-engine=guess: there is no such choice"),
        ("--bpf-cov-report=pdf", "--bpf-cov-report: there is no report 'pdf'"),
        ("--bpf-cov-fail-under=lots", "--bpf-cov-fail-under=lots: it is no percentage"),
        ("--bpf-cov-context=line", "--bpf-cov-context=line: there is no such choice"),
        ("--bpf-cov=test_small.py", "--bpf-cov=test_small.py: it names a file of Python*"),
        ("--bpf-cov=./", "--bpf-cov=./: it names a folder*"),
    ],
)
def test_options_that_make_no_sense(suite: pytest.Pytester, option: str, words: str) -> None:
    result = run(suite, option)
    result.stderr.fnmatch_lines([f"ERROR: {words}", "  -> *"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def _passes_and_tells(suite: pytest.Pytester, lines: list[str], *options: str) -> pytest.RunResult:
    """Runs the suite: its test passes, and the summary has the lines. Returns the result of the run."""
    result = run(suite, *options)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(lines)
    assert result.ret == 0
    return result


def test_a_pattern_that_fits_no_source(suite: pytest.Pytester) -> None:
    told = ["no coverage: none of the measured sources fits --bpf-cov=other*: judge.bpf.c", "  -> *"]
    _passes_and_tells(suite, told, "--bpf-cov=other*")


def _clang_alone(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a folder with a clang the only one in $PATH."""
    from pytest_bpfmaps.compiler.local_compiler import LocalCompiler

    clang = LocalCompiler().clang.path
    folder = suite.path / "bin"
    folder.mkdir()
    (folder / "clang").write_text(f'#!/bin/sh\nexec {clang} "$@"\n')
    (folder / "clang").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_without_the_tools_of_llvm(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    _clang_alone(suite, monkeypatch)
    _passes_and_tells(
        suite,
        [
            "not measured: judge of judge.bpf.c: counters: its counts could not be turned*",
            "cannot report what clang counted for *: there is no llvm-profdata nor *",
            "  -> install LLVM's tools*",
        ],
    ).stdout.no_fnmatch_line("measured: *")


def test_with_tools_of_another_version(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _clang_alone(suite, monkeypatch)
    for name in ("llvm-profdata", "llvm-cov"):
        (folder / name).write_text("#!/bin/sh\necho Debian LLVM version 3.9.1\n")
        (folder / name).chmod(0o755)
    _passes_and_tells(suite, ["cannot report what clang counted for *llvm-profdata is of version 3"])


def test_a_full_disk(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    _passes_and_tells(
        suite,
        [
            "cannot write the coverage report lcov:/dev/full: No space left on device*",
            "*xml:/dev/full: No space*",
        ],
        "--bpf-cov-report=lcov:/dev/full",
        "--bpf-cov-report=xml:/dev/full",
    )


def test_a_folder_that_nobody_may_write_to(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPF_COVERAGE_FILE", "/proc/none/data")
    result = run(suite, "--bpf-cov-report=html:/proc/none")
    result.stdout.fnmatch_lines(["cannot keep the coverage of this run in /proc/none/data: *"])
    result.stdout.fnmatch_lines(["cannot write the coverage report html:/proc/none: *"])
    assert result.ret == 0


def test_a_source_that_is_gone(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_small=TESTS + '\n    import os\n    os.unlink("judge.bpf.c")')
    _passes_and_tells(suite, ["judge.bpf.c: its lines can't be shown: No such file or directory"])
    assert os.path.exists(suite.path / ".bpf-coverage.json")
