"""Tests real warnings of a kernel in guests: which test they fail, and what allows them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from caches import CACHE
from shown_blocks import shows

KERNEL = os.environ.get("BPFMAPS_BREAKS_ON", "6.1")

TESTS = """
    import pytest
    from broken_disk import warn

    @pytest.fixture
    def bpf_kernel():
        return "overrides the plugin's, which costs time"

    @pytest.fixture
    def warns(tmp_path):
        warn(tmp_path)

    @pytest.fixture
    def warns_late(tmp_path):
        yield
        warn(tmp_path)

    def test_before(bpf_kernel):
        pass

    def test_warns(bpf_kernel, tmp_path):
        warn(tmp_path)

    def test_is_quiet(bpf_kernel):
        pass

    def test_fixture_warns(bpf_kernel, warns):
        pass

    def test_fixture_warns_late(bpf_kernel, warns_late):
        pass

    def test_warns_and_fails(bpf_kernel, tmp_path):
        warn(tmp_path)
        assert 1 == 2

    def test_warns_and_skips(bpf_kernel, tmp_path):
        warn(tmp_path)
        pytest.skip("too late")

    @pytest.mark.bpf_kernel_warnings("^Call Trace", "no such thing", reason="the marker finds it in any line")
    def test_is_allowed(bpf_kernel, tmp_path):
        warn(tmp_path)

    @pytest.mark.bpf_kernel_warnings("mark_buffer_dirty", reason="")
    def test_has_no_reason(bpf_kernel):
        pass

    def test_programs_may_log_what_they_like(bpf_kernel):
        with open("/dev/kmsg", "w") as log:
            log.write("<2>WARNING: from a program")

    def test_after(bpf_kernel):
        pass
"""
WARNED = "kernel: WARNING at fs/buffer.c:* in mark_buffer_dirty()"


@pytest.fixture
def guest_tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    shutil.copy(Path(__file__).with_name("broken_disk.py"), pytester.path)
    pytester.makepyfile(test_it=TESTS)
    return pytester


def test_a_warning_fails_the_test_that_caused_it(guest_tests: pytest.Pytester) -> None:
    result = guest_tests.runpytest_subprocess(f"--bpf-kernel={KERNEL}", "--junitxml=report.xml", "-rA")
    result.assert_outcomes(passed=6, failed=4, errors=2)
    failed = ("test_warns", "test_fixture_warns", "test_warns_and_skips", "test_warns_and_fails")
    for name in failed[:3]:
        result.stdout.fnmatch_lines([f"*_ {name}[[]{KERNEL}] _*", WARNED, "*Captured kernel log call*"])
    result.stdout.fnmatch_lines(
        [f"*ERROR at setup of test_has_no_reason[[]{KERNEL}]*", "*a reason are needed"]
    )
    result.stdout.fnmatch_lines(
        [
            f"*ERROR at teardown of test_fixture_warns_late[[]{KERNEL}]*",
            WARNED,
            "*Captured kernel log teardown*",
        ]
    )
    result.stdout.fnmatch_lines(
        [
            "*_ test_warns_and_fails*",
            "*assert 1 == 2*",
            "*Captured kernel log call*",
            "*at *mark_buffer_dirty+0x*",
        ]
    )
    result.stdout.fnmatch_lines([f"FAILED test_it.py::test_warns[[]{KERNEL}] - Failed: {WARNED[:24]}*"])
    assert "RAX:" not in result.stdout.str()
    if KERNEL == "6.1":
        shows("kernel-warnings.md", "mark_buffer_dirty", result.stdout.str())
    cases = ElementTree.parse(guest_tests.path / "report.xml").iter("testcase")
    failures = {str(case.get("name")): case.find("failure") for case in cases}
    assert {name for name, failure in failures.items() if failure is not None} == {
        f"{name}[{KERNEL}]" for name in failed
    }
    failure = failures[f"test_warns[{KERNEL}]"]
    assert failure is not None
    assert "mark_buffer_dirty" in str(failure.get("message"))


def test_x_stops_at_it_and_lf_runs_it_again(guest_tests: pytest.Pytester) -> None:
    select = (f"--bpf-kernel={KERNEL}", "-k", "before or test_warns")
    guest_tests.runpytest_subprocess(*select, "-x").assert_outcomes(passed=1, failed=1)
    allow = "bpf_allow_kernel_warnings=mark_buffer_dirty  # a disk that is broken on purpose"
    result = guest_tests.runpytest_subprocess(*select[:1], "--lf", "-o", allow)
    result.assert_outcomes(passed=1)


def test_without_the_log_no_test_fails(guest_tests: pytest.Pytester) -> None:
    guest_tests.makeconftest(
        """
        import os

        if "BPFMAPS_CONTROL_FD" in os.environ:  # in the guest, before the log is opened
            os.unlink("/dev/kmsg")
        """
    )
    result = guest_tests.runpytest_subprocess(f"--bpf-kernel={KERNEL}", "-k", "test_warns")
    result.assert_outcomes(passed=1, failed=1, skipped=1)


def test_the_running_kernel_is_watched_as_well(guest_tests: pytest.Pytester) -> None:
    """pytest runs inside the guest by itself, so the guest's kernel is the running one."""
    guest_tests.makepyfile(
        test_outer="""
        import os, shutil, subprocess, sys
        import pytest

        @pytest.mark.bpf_kernel_warnings("mark_buffer_dirty", reason="the other pytest is to find it")
        def test_pytest_by_itself(bpf_kernel, tmp_path):
            for name in ("test_it.py", "broken_disk.py"):
                shutil.copy(name, tmp_path)
            own = {n: v for n, v in os.environ.items() if not n.startswith(("PYTEST_", "BPFMAPS_CONTROL"))}
            command = [sys.executable, "-m", "pytest", "-rA", "-k", "before or test_warns", "-p", "no:xdist"]
            command += ["--bpf-kernel=host", "-p", "no:hypothesispytest"]
            done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
            print(done.stdout)
            assert done.returncode == 1
        """
    )
    result = guest_tests.runpytest_subprocess(f"--bpf-kernel={KERNEL}", "test_outer.py", "-rP")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*_ test_warns[[]host] _*", WARNED, "*Captured kernel log call*"])
    result.stdout.fnmatch_lines(["PASSED test_it.py::test_before[[]host]"])
    # The kernel prints some warnings once per boot. It is not told to print them again here, because the
    # machine may be used by others, too.
    result.stdout.fnmatch_lines(["*2 failed, 1 passed, 1 skipped, *"])
