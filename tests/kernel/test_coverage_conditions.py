"""Tests ``--bpf-cov-mcdc``: its options, what it adds up over runs, and refused programs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from coverage_suite import measured_suite, run
from shown_blocks import shows

from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.errors import CompileError

pytestmark = pytest.mark.bpf_requires("xdp")

SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";

SEC("xdp") int judge(struct xdp_md *ctx)
{
	int size = ctx->data_end - ctx->data;

	if (size > 20 && size & 1)
		return XDP_DROP;
	return XDP_PASS;
}
"""
TESTS = """
import pytest

@pytest.mark.parametrize("size", [14, 21, 22])
def test_size(bpf, size):
    loaded = bpf.load("judge.bpf.c")
    assert [m.name for m in loaded.maps] == []
    loaded.programs.judge.run(bytes(size))
"""
# A program may use 64 maps: here are 63, so there is room for those with the counters and with nothing else.
MANY_MAPS = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
#define MAP(n) struct {{ __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); \\
	__type(key, int); __type(value, int); }} m##n SEC(".maps");
{maps}
SEC("xdp") int judge(struct xdp_md *ctx)
{{
	int key = ctx->ingress_ifindex;

	{updates}
	if (key && ctx->rx_queue_index)
		return XDP_DROP;
	return XDP_PASS;
}}
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    made = measured_suite(pytester, monkeypatch)
    (made.path / "judge.bpf.c").write_text(SOURCE)
    (made.path / "test_small.py").unlink()
    made.makepyfile(test_size=TESTS)
    return made


def clang(name: str) -> str:
    try:
        return f"--bpf-clang={LocalCompiler(name).clang.path}"
    except CompileError as e:
        pytest.skip(str(e).splitlines()[0])


def decided(suite: pytest.Pytester, *options: str) -> list[bool]:
    """Returns for the conditions of the program whether each was seen to decide alone."""
    report = "--bpf-cov-report=json:out.json"
    result = run(suite, "--bpf-cov-mcdc", clang("clang-19"), report, *options)
    assert result.ret == 0, result.outlines
    file: dict[str, Any] = json.loads((suite.path / "out.json").read_text())["files"]["judge.bpf.c"]
    (one,) = file["decisions"]
    return [condition["decided"] for condition in one["conditions"]]


def test_conditions_of_tests_together(suite: pytest.Pytester) -> None:
    assert decided(suite) == [True, True]
    assert decided(suite, "-k", "21 or 22") == [False, True]
    assert decided(suite, "-k", "14 or 22") == [False, False]


def test_two_runs_complete_a_pair(suite: pytest.Pytester) -> None:
    assert decided(suite, "-k", "14") == [False, False]
    assert decided(suite, "-k", "21", "--bpf-cov-append") == [True, False]
    assert decided(suite, "-k", "22", "--bpf-cov-append") == [True, True]


def test_the_table(suite: pytest.Pytester) -> None:
    result = run(suite, "--bpf-cov-mcdc", clang("clang-19"), "--bpf-cov-report=term-missing", "-k", "not 14")
    result.stdout.fnmatch_lines(
        [
            "File *Lines *Miss *Branch *Miss *MC/DC *Miss *Cover",
            "judge.bpf.c * 4 * 1 * 2 * 1 *",
            "*never decided alone: 9 condition 1 of 2",
        ]
    )
    shows("coverage.md", "never decided alone", result.stdout.str())


def test_a_clang_without_conditions(suite: pytest.Pytester) -> None:
    result = run(suite, "--bpf-cov-mcdc", clang("clang-14"))
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["judge.bpf.c *100%", "no MC/DC: clang 14* has no -fcoverage-mcdc", "  -> compile with clang 18*"]
    )
    assert [line for line in result.outlines if "no MC/DC" in line][1:] == []


def test_only_when_asked(suite: pytest.Pytester) -> None:
    result = run(suite, clang("clang-19"))
    assert not [line for line in result.outlines if "MC/DC" in line]


def test_a_program_that_is_refused_with_conditions_counts_without(suite: pytest.Pytester) -> None:
    numbers = range(63)
    text = MANY_MAPS.format(
        maps="\n".join(f"MAP({n})" for n in numbers),
        updates="\n\t".join(f"bpf_map_update_elem(&m{n}, &key, &key, 0);" for n in numbers),
    )
    (suite.path / "judge.bpf.c").write_text(text)
    (suite.path / "test_size.py").write_text("def test_it(bpf):\n    bpf.load('judge.bpf.c')\n")
    result = run(suite, "--bpf-cov-mcdc", clang("clang-19"))
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["measured: 1 program by counters"])
    shows("coverage.md", "no MC/DC of", result.stdout.str())


def test_not_with_the_engine_that_sees_no_conditions(suite: pytest.Pytester) -> None:
    result = run(suite, "--bpf-cov-mcdc", "--bpf-cov-engine=blocks")
    result.stderr.fnmatch_lines(
        ["ERROR: --bpf-cov-mcdc: the engine blocks does not see conditions", "  -> *"]
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
