"""Tests what a failing test shows of the processes that it started."""

from __future__ import annotations

import pytest


def test_a_failing_test_shows_what_an_agent_wrote(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_it(bpf):
            agent = bpf.start(["sh", "-c", "echo to stdout; echo to stderr >&2; exit 3"])
            assert agent.wait() == 0

        def test_good(bpf):
            bpf.start(["echo", "unseen"]).wait()
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:xdist", "--bpf-kernel=host")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.re_match_lines_random(
        [
            r"-+ Captured stdout of sh \(pid \d+, ended with exit status 3\) -+",
            "to stdout",
            r"-+ Captured stderr of sh \(pid \d+, ended with exit status 3\) -+",
            "to stderr",
        ]
    )
    result.stdout.no_fnmatch_line("*unseen*")


def test_a_run_without_agents_does_not_import_the_room(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it(bpf):
            assert [name for name in sys.modules if name.startswith("pytest_bpfmaps.loaders")] == []
        """
    )
    pytester.runpytest_subprocess("-p", "no:xdist", "--bpf-kernel=host").assert_outcomes(passed=1)
