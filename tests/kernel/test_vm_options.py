"""pytest's own options, and pytest-xdist's, in runs that have guests."""

from __future__ import annotations

import pytest

from pytest_bpfmaps import paths

CACHE = paths.cache_dir()  # before pytester moves HOME


@pytest.fixture(autouse=True)
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makeconftest(
        """
        import os, pytest

        @pytest.fixture
        def bpf_kernel():
            return os.uname().release
        """
    )
    pytester.makepyfile(
        test_suite="""
        import os

        def test_one(bpf_kernel): pass
        def test_fails_in_the_guest(bpf_kernel): assert not bpf_kernel.startswith("6.1.0-")
        def test_two(bpf_kernel): pass
        def test_three(bpf_kernel): pass
        def test_plain(): pass
        """
    )


def test_without_autoloading_then_the_last_failed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    arguments = ["-p", "bpfmaps", "--bpf-kernel=host,6.1"]
    result = pytester.runpytest_subprocess(*arguments, "-q")
    result.assert_outcomes(passed=8, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_suite.py::test_fails_in_the_guest[[]6.1]*"])
    result = pytester.runpytest_subprocess(*arguments, "--lf", "-v")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*FAILED test_suite.py::test_fails_in_the_guest[[]6.1]*"])
    assert "test_one" not in result.stdout.str()


def test_stop_at_the_first_failure_with_several_host_workers(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--bpf-kernel=host,6.1", "-n2", "-x", "-k", "one or fails", "-v")
    assert result.ret in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.TESTS_FAILED}
    result.stdout.fnmatch_lines(
        ["*FAILED test_suite.py::test_fails_in_the_guest[[]6.1]*", "*stopping after 1 failures*"]
    )
    result.stdout.fnmatch_lines_random(
        ["*PASSED test_suite.py::test_one[[]host]*", "*PASSED test_suite.py::test_one[[]6.1]*"]
    )
