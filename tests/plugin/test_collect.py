"""Tests bpf_collect: sources with expectations become items."""

import pytest

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpfmaps_expect.h>
char LICENSE[] SEC("license") = "GPL";

SEC("xdp") __success __retval(2) __description("it passes")
int passes(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp") __failure __msg("invalid access to packet")
int too_far(struct xdp_md *ctx)
{
	return *(int *)(long)ctx->data;
}
"""
WRONG = SOURCE.replace("__retval(2)", "__retval(1)").replace('__msg("invalid', '__msg("no such')
PLAIN = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int prog(struct xdp_md *ctx) { return XDP_PASS; }
"""


@pytest.fixture
def project(pytester):
    (pytester.path / "bpf" / "deep").mkdir(parents=True)
    (pytester.path / "bpf" / "deep" / "a.bpf.c").write_text(SOURCE)
    (pytester.path / "bpf" / "plain.bpf.c").write_text(PLAIN)
    (pytester.path / "tests").mkdir()
    (pytester.path / "tests" / "test_it.py").write_text("def test_it(): pass\n")
    (pytester.path / "pytest.toml").write_text(
        '[pytest]\nbpf_collect = ["bpf/**/*.bpf.c"]\ntestpaths = ["tests"]\nstrict = true\n'
    )
    return pytester


def items(pytester, *arguments):
    result = pytester.runpytest_subprocess("--collect-only", "-q", *arguments)
    return [line for line in result.outlines if "::" in line]


def test_each_program_is_an_item_that_runs(project):
    result = project.runpytest_subprocess("-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["bpf/deep/a.bpf.c::passes PASSED*", "bpf/deep/a.bpf.c::too_far PASSED*"])


def test_what_is_named_on_the_command_line_is_collected(project):
    assert items(project, "tests") == ["tests/test_it.py::test_it"]
    assert items(project, "bpf") == ["bpf/deep/a.bpf.c::passes", "bpf/deep/a.bpf.c::too_far"]
    assert items(project, "bpf/deep/a.bpf.c::too_far") == ["bpf/deep/a.bpf.c::too_far"]
    assert items(project, "bpf", "-k", "passes") == ["bpf/deep/a.bpf.c::passes"]


def test_items_bear_the_kernels_name(project):
    assert items(project, "bpf", "--bpf-kernel=host") == [
        "bpf/deep/a.bpf.c::passes[host]",
        "bpf/deep/a.bpf.c::too_far[host]",
    ]


def test_workers_share_them(project):
    project.runpytest_subprocess("-n", "2").assert_outcomes(passed=3)


def test_without_the_option_nothing_is_collected(project):
    (project.path / "pytest.toml").write_text("[pytest]\n")
    assert items(project) == ["tests/test_it.py::test_it"]


def test_failures_show_what_differs(project):
    (project.path / "bpf" / "deep" / "a.bpf.c").write_text(WRONG)
    result = project.runpytest_subprocess("bpf")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "the return value of program 'passes' of a.bpf.c: it is 2 (0x2), and __retval says 1",
            "the verifier's log lacks 'no such access to packet' for program 'too_far' of a.bpf.c: *",
            "*BPF verifier log*",
        ]
    )
    result.stdout.no_fnmatch_line("*selftests/runner.py*")


def test_a_source_that_does_not_compile_is_an_error_of_the_collection(project):
    (project.path / "bpf" / "deep" / "a.bpf.c").write_text(SOURCE + "int x = y;\n")
    result = project.runpytest_subprocess("bpf")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*a.bpf.c*use of undeclared identifier 'y'*"])


def test_a_pattern_may_be_absolute(project, pytester):
    (pytester.path / "pytest.toml").write_text(
        f'[pytest]\nbpf_collect = ["{pytester.path}/bpf/**/*.bpf.c"]\ntestpaths = ["tests"]\nstrict = true\n'
    )
    result = pytester.runpytest_subprocess("--collect-only", "-q")
    result.stdout.fnmatch_lines(["bpf/deep/a.bpf.c::passes", "bpf/deep/a.bpf.c::too_far"])
