"""Follows the page on the coverage of a pull request: `diff-cover` compares a report with a change."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from caches import CACHE
from shown_blocks import DOCS, shows

pytestmark = pytest.mark.bpf_requires("xdp")
ADDED = "\tif (size > 1000)\n\t\treturn XDP_DROP;\n"


def test_the_lines_that_a_pull_request_adds(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    page = (DOCS / "howto/coverage.md").read_text()
    files = dict(
        re.findall(r"^```\w+\n(?://|#) file: (\w+\.\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    )
    program = files["filter.bpf.c"]
    assert program.splitlines()[8:10] == ADDED.splitlines()
    (pytester.path / "test_filter.py").write_text(files["test_filter.py"])

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=pytester.path, check=True)

    git("init", "-q", "-b", "main", ".")
    for text, name in ((program.replace(ADDED, ""), "before"), (program, "the pull request")):
        (pytester.path / "filter.bpf.c").write_text(text)
        git("add", "filter.bpf.c")
        git("commit", "-q", "-m", name)
    report = ["--bpf-cov", "--bpf-cov-report=lcov:bpf.lcov"]
    pytester.runpytest_subprocess("-p", "no:cacheprovider", *report).assert_outcomes(passed=1)
    command = [Path(sys.executable).with_name("diff-cover"), "bpf.lcov", "--compare-branch=main~1"]
    done = subprocess.run(
        [*command, "--fail-under=100"], cwd=pytester.path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    shows("howto/coverage.md", "Missing lines", done.stdout)
