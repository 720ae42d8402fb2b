"""Tests that ``--bpf-gdb`` says at once where nobody can attach gdb."""

from __future__ import annotations

import sys

import pytest

TEST = "def test_x(bpf_kernel): pass"


@pytest.mark.parametrize(
    ("arguments", "why", "fix"),
    [
        (
            ["--bpf-kernel=host"],
            "*these tests run on the host's kernel",
            "choose a kernel: --bpf-kernel=*",
        ),
        (["--bpf-kernel=6.1", "-n2"], "several workers run at the same time*", "leave out -n, --tx"),
        (["--bpf-kernel=6.1"], "pytest has no terminal (*", "run it in a terminal, without nohup or setsid"),
        (["--bpf-kernel=6.1,host"], "pytest has no terminal (*", "run it in a terminal*"),
    ],
)
def test_where_it_is_refused(pytester: pytest.Pytester, arguments: list[str], why: str, fix: str) -> None:
    pytester.makepyfile(TEST)
    command = ["setsid", "--wait", sys.executable, "-m", "pytest", "--bpf-gdb"]
    result = pytester.run(*command, *arguments, stdin=b"")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --bpf-gdb can't be used here: {why}", f"  -> {fix}"])


def test_a_run_that_only_looks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess("--bpf-gdb", "--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*::test_x*"])
