"""Tests that skips are counted by feature, and that --bpf-strict fails on skips without need."""

import os

import pytest

SUITE = """
    import pytest

    @pytest.mark.bpf_requires(config="NO_SUCH_OPTION")
    def test_needs_one(bpf_kernel): pass

    @pytest.mark.bpf_requires(config="NO_SUCH_OPTION")
    @pytest.mark.parametrize("x", [1, 2])
    def test_needs_two(bpf_kernel, x): pass

    @pytest.mark.bpf_requires(config="NEITHER_THIS_ONE")
    def test_needs_three(bpf_kernel): pass

    def test_runs(bpf_kernel): pass
    def test_other(): pass
"""
LACKS_NEWEST = """
    import pytest
    from pytest_bpfmaps.kernel import features

    def absent(name):
        return features.Feature(f"map type {name}", False, "it is switched off")

    features._PROBES["map_type"] = absent
"""
NEEDS_HASH = """
    import pytest

    @pytest.mark.bpf_requires("hash")
    def test_it(bpf_kernel): pass

    def test_runs(bpf_kernel): pass
"""


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_skips_are_counted_by_feature(pytester, options):
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=2, skipped=4)
    result.stdout.fnmatch_lines(
        [
            "*= BPF features missing =*",
            "lacks CONFIG_NO_SUCH_OPTION: 3 tests (host)",
            "lacks CONFIG_NEITHER_THIS_ONE: 1 test (host)",
        ]
    )
    assert result.ret == pytest.ExitCode.OK


def test_nothing_is_said_when_nothing_is_missing(pytester):
    pytester.makepyfile("def test_runs(bpf_kernel): pass")
    result = pytester.runpytest_subprocess("--bpf-strict")
    result.assert_outcomes(passed=1)
    assert "BPF" not in result.stdout.str()
    assert "strict" not in result.stdout.str()


@pytest.mark.parametrize(
    "options", [("--bpf-strict",), ("-o", "bpf_strict=true"), ("--bpf-strict", "-n", "2")]
)
def test_strict_names_tests_that_ran_nowhere(pytester, options):
    pytester.makepyfile(test_suite=SUITE)
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=2, skipped=4)
    result.stdout.fnmatch_lines(
        [
            "*= --bpf-strict =*",
            "test_suite.py::test_needs_one: ran on no kernel",
            "test_suite.py::test_needs_two[[]1[]]: ran on no kernel",
        ]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_strict_wants_one_bpf_test_to_run(pytester):
    pytester.makepyfile("def test_other(): pass")
    result = pytester.runpytest_subprocess("--bpf-strict")
    result.stdout.fnmatch_lines(["no BPF test ran: 0 tests collected"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert pytester.runpytest_subprocess("--bpf-strict", "--collect-only").ret == pytest.ExitCode.OK


def test_strict_fails_a_skip_for_what_the_release_has(pytester):
    pytester.makeconftest(LACKS_NEWEST)
    pytester.makepyfile(NEEDS_HASH)
    pytester.runpytest_subprocess().assert_outcomes(passed=1, skipped=1)
    result = pytester.runpytest_subprocess("--bpf-strict")
    result.assert_outcomes(passed=1, errors=1)
    release = os.uname().release
    result.stdout.fnmatch_lines(
        [
            f"{release} lacks map type hash: it is switched off*",
            f"  -> Linux has it since 3.19, so {release} is configured without it, locked *",
        ]
    )


def test_the_kernel_is_no_part_of_a_tests_name(pytester):
    pytester.makepyfile(test_suite=SUITE)
    result = pytester.runpytest_subprocess("--bpf-strict", "--bpf-kernel=host")
    result.stdout.fnmatch_lines(["test_suite.py::test_needs_two[[]1[]]: ran on no kernel"])


def test_a_test_asks_for_an_ability_of_clang(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.bpf_requires(clang=["__bpf__", "__clang_major__ >= 14"])
        def test_has(bpf_kernel): pass

        @pytest.mark.bpf_requires(clang="__clang_major__ >= 1000")
        def test_has_not(bpf_kernel): pass

        @pytest.mark.bpf_requires(clang="NO_SUCH_MACRO")
        def test_has_not_either(bpf_kernel): pass

        @pytest.mark.bpf_requires(clang="( >")
        def test_malformed(bpf_kernel): pass
        """
    )
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(passed=1, skipped=2, errors=1)
    result.stdout.re_match_lines(
        [
            r".*CompileError: cannot compile ability\.bpf\.c",
            r"lacks clang with NO_SUCH_MACRO: 1 test \(host\)",
            r"SKIPPED .*: clang \d+[\d.]* lacks __clang_major__ >= 1000; install a newer one",
        ]
    )


def test_the_same_reason_in_several_files_is_one_line(pytester):
    needs = 'import pytest\n@pytest.mark.bpf_requires(clang="NO_SUCH_MACRO")\ndef test_it(bpf_kernel): pass\n'
    pytester.makepyfile(
        test_one=needs,
        test_two=needs,
        test_skipped="import pytest\npytest.skip('as a whole', allow_module_level=True)",
    )
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=3)
    lines = [line for line in result.outlines if line.startswith("SKIPPED [")]
    assert len(lines) == 2
    result.stdout.re_match_lines_random(
        [r"SKIPPED \[2\] \S+: .*NO_SUCH_MACRO", r"SKIPPED \[1\] test_skipped.py:2: as a whole"]
    )
