"""Tests what ``ci/test`` does about a test that is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = """
import pytest

def test_of_another_kernel(): pytest.skip("this kernel has no arenas\\n  -> try --bpf-kernel=7.2")
def test_of_a_package(): pytest.skip("no gcc: apt-get install gcc")
def test_of_a_package_that_apt_has(): pytest.skip("x is missing: apt-get install dpkg")
def test_of_a_package_that_apt_lacks(): pytest.skip("x is missing: apt-get install dpkg no-such-package")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makepyfile(TESTS)
    return pytester


def test_a_skip_that_is_not_listed_fails_the_run(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_SKIPS", "listed")
    result = suite.runpytest_subprocess("-p", "allowed_skips")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*skips that ci/allowed-skips.txt does not have*",
            "no gcc: apt-get install gcc: *::test_of_a_package",
            "x is missing: apt-get install dpkg: *::test_of_a_package_that_apt_has",
        ]
    )
    result.stdout.no_fnmatch_line("*apt_lacks*")
    result.stdout.no_fnmatch_line("*::test_of_another_kernel*")


def test_it_is_a_matter_of_ci_only(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI_SKIPS", raising=False)
    result = suite.runpytest_subprocess("-p", "allowed_skips")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*allowed-skips*")
