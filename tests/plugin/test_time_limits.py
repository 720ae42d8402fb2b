"""Tests the time limit that pytest-timeout gives to a test, and that its guest is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PLUGINS = Path(sys.prefix, "other-plugins")
CONFTEST = """
    import pytest
    from pytest_bpfmaps.compat.other_plugins import time_limit

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(item):
        print(item.name, "has", time_limit(item))
        return (yield)
"""
TESTS = """
    import pytest

    def test_usual(): pass

    @pytest.mark.timeout(100)
    def test_long(): pass

    @pytest.mark.timeout(timeout=0)
    def test_endless(): pass

    @pytest.mark.timeout("soon")
    def test_wrong(): pass
"""


needs_plugins = pytest.mark.skipif(not PLUGINS.exists(), reason=f"no folder {PLUGINS}: ci/setup makes it")


@needs_plugins
@pytest.mark.parametrize(("argument", "usual"), [("--timeout=7.5", 7.5), ("--timeout=0", 0.0), ("-v", 0.0)])
def test_the_limit_of_a_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, argument: str, usual: float
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PLUGINS))
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-s", "-k", "not wrong", argument)
    result.assert_outcomes(passed=3, deselected=1)
    for name, seconds in {"usual": usual, "long": 100.0, "endless": 0.0}.items():
        result.stdout.fnmatch_lines([f"*test_{name} has {seconds}*"])


@needs_plugins
def test_a_wrong_limit_is_refused_by_the_plugin(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PLUGINS))
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-s", "-k", "wrong")
    result.stdout.fnmatch_lines(["*test_wrong has 0.0*", "*ValueError: Invalid timeout soon from marker"])


def test_without_the_plugin_there_is_none(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nmarkers = timeout: of another plugin\n")
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-s", "-p", "no:timeout")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*test_long has 0.0*"])
