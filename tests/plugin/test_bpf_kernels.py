"""Tests the marker bpf_kernels: names, globs, ranges of versions."""

import os
import re

import pytest

SUITE = """
    import pytest

    @pytest.mark.bpf_kernels({text!r})
    def test_marked(bpf_kernel): pass
"""


def release():
    return re.match(r"\d+\.\d+", os.uname().release)[0]


@pytest.mark.parametrize("options", [(), ("--bpf-kernel=host",), ("--bpf-kernel=host", "-n", "1")])
def test_a_range_is_compared_with_the_kernels_release(pytester, options):
    for text, outcome in {
        f">={release()}": {"passed": 1},
        f"=={release()}": {"passed": 1},
        ">=4.9,<5": {"skipped": 1},
        f">{release()}": {"skipped": 1},
    }.items():
        pytester.makepyfile(SUITE.format(text=text))
        pytester.runpytest_subprocess(*options).assert_outcomes(**outcome)


@pytest.mark.parametrize("options", [(), ("--bpf-kernel=host",)])
def test_what_is_no_range_is_an_error(pytester, options):
    pytester.makepyfile(SUITE.format(text=">=new"))
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*bpf_kernels: '>=new' is not a range of versions: write '>=5.15'*"])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("", "it names no kernel: write '6.1'"),
        ("6.1", "6.1 is no name of a kernel"),
        ("name='host'", "name='host' is no name of a kernel"),
        ("'>=6.6,<6.1'", "no version is in the range '>=6.6,<6.1'"),
    ],
)
def test_what_no_kernel_can_fit_is_an_error(pytester, arguments, error):
    pytester.makepyfile(SUITE.format(text="").replace("''", arguments))
    result = pytester.runpytest_subprocess("--bpf-kernel=host")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*bpf_kernels: {error}*"])


@pytest.mark.parametrize(
    ("text", "warnings"), [("hots", 1), ("x86*", 1), ("6.1", 0), ("99.1", 0), ("ho*", 0)]
)
def test_what_fits_no_kernel_is_a_warning(pytester, text, warnings):
    pytester.makepyfile(SUITE.format(text=text))
    result = pytester.runpytest_subprocess("--bpf-kernel=host", "-W", "default")
    assert result.parseoutcomes().get("warnings", 0) == warnings
    if warnings:
        result.stdout.fnmatch_lines([f"*PytestWarning: bpf_kernels({text!r}) fits no kernel: *"])
