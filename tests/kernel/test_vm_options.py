"""Tests options of pytest and pytest-xdist in runs that have guests."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from caches import CACHE


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
    result.stdout.fnmatch_lines(["test_suite.py::test_fails_in_the_guest[[]6.1] FAILED*"])
    assert "test_one" not in result.stdout.str()


def test_stop_at_the_first_failure_with_several_host_workers(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--bpf-kernel=host,6.1", "-n2", "-x", "-k", "one or fails", "-v")
    assert result.ret in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.TESTS_FAILED}
    result.stdout.fnmatch_lines(  # the host's tests may have run by then, or not
        [
            "test_suite.py::test_one[[]6.1] PASSED*",
            "test_suite.py::test_fails_in_the_guest[[]6.1] FAILED*",
            "!* stopping after 1 failures !*",
        ]
    )


def test_host_workers_share_as_dist_says_and_junit_has_the_prefix(pytester: pytest.Pytester) -> None:
    where = "import os\ndef where(): print('ran in', os.environ['PYTEST_XDIST_WORKER'])\n"
    tests = "".join(f"def test_{name}(): where()\n" for name in "abc")
    pytester.makepyfile(test_more=where + tests)
    result = pytester.runpytest_subprocess(
        "--bpf-kernel=host,6.1", "-n2", "--dist=loadfile", "-rA", "--junitxml=report.xml", "--junit-prefix=ci"
    )
    result.assert_outcomes(passed=11, failed=1)
    workers = re.findall(r"^ran in (\w+)$", result.stdout.str(), re.M)
    assert len(workers) == 3
    assert len(set(workers)) == 1
    cases = ElementTree.parse(pytester.path / "report.xml").iter("testcase")
    named = [f"{case.get('classname')}::{case.get('name')}" for case in cases]
    assert {"ci.test_suite::test_one[6.1]", "ci.test_more::test_a"} < {*named}
    assert len(named) == len(set(named)) == 12


@pytest.mark.parametrize(("way", "capture"), [("warm", "no"), ("warm", "tee-sys"), ("virtme-ng", "no")])
def test_what_tests_write_is_seen_at_once(pytester: pytest.Pytester, way: str, capture: str) -> None:
    """It is seen from all workers, and in a guest also before its kernel panics."""
    pytester.makepyfile(
        test_suite="""
        import os, sys

        def test_writes(bpf_kernel):
            where = "guest" if bpf_kernel.startswith("6.1.0-") else "host"
            print("a line from the", where)
            print("an error from the", where, file=sys.stderr)

        def test_panics(bpf_kernel):
            if bpf_kernel.startswith("6.1.0-"):
                os.system("echo the last words of a child")
                with open("/proc/sysrq-trigger", "w") as trigger:
                    trigger.write("c")
        """
    )
    options = [f"--capture={capture}", "--bpf-kernel=host,6.1", f"--bpf-vm={way}"]
    result = pytester.runpytest_subprocess(*options, "-q")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*_ test_panics[[]6.1] _*",
            "VmLostError: guest died: kernel 6.1 (*): kernel panic: sysrq triggered crash",
            "*- Console of kernel 6.1 -*",
            "*write_sysrq_trigger+0x*",
        ]
    )
    for line in ("a line from the host", "a line from the guest"):
        assert result.stderr.lines.count(line) == 1
        assert line not in result.stdout.str()
    for where in ("host", "guest"):
        assert f"an error from the {where}" in result.stderr.lines
    assert "the last words of a child" in result.stderr.lines
    assert "passed" not in result.stderr.str(), "pytest's own output in a worker"


def test_a_memory_that_is_no_size(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "--bpf-vm-memory=much")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*a memory of 'much': it is no size", "*--bpf-vm-memory=512M*"])
