"""Tests the list of allowed kernel warnings, and which runs open the kernel's log."""

from __future__ import annotations

import pytest

OPTION = "bpf_allow_kernel_warnings"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("drop_nlink", f"ERROR: {OPTION}: 'drop_nlink' has no reason"),
        ("drop_nlink #", f"ERROR: {OPTION}: 'drop_nlink #' has no reason"),
        (" # only a reason", f"ERROR: {OPTION}: *has no reason"),
        ("drop_(nlink  # a disk", f"ERROR: {OPTION}: 'drop_(nlink' is no regular expression: *"),
    ],
)
def test_a_line_that_allows_needs_a_regular_expression_and_a_reason(
    pytester: pytest.Pytester, line: str, message: str
) -> None:
    pytester.makepyfile("def test_x(): pass")
    result = pytester.runpytest_subprocess("-o", f"{OPTION}={line}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message.replace("[", "[[]")])


def test_the_list_of_a_project_is_read_from_its_configuration(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(
        f"""
        [tool.pytest]
        {OPTION} = [
            "WARNING: .* at drivers/old\\\\.c  # of our network card",
            "a # in it  # is fine",
        ]
        """
    )
    pytester.makepyfile(
        f"""
        from pytest_bpfmaps.report.allowed import allowed_by

        def test_x(pytestconfig):
            found = [regex.pattern for regex in allowed_by(pytestconfig, "{OPTION}")]
            assert found == ["WARNING: .* at drivers/old\\\\.c", "a # in it"]
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize(("test", "is_watched"), [("def test_x(bpf_it", True), ("def test_x(it", False)])
def test_only_a_run_with_bpf_tests_opens_the_log(
    pytester: pytest.Pytester, test: str, is_watched: bool
) -> None:
    pytester.makepyfile(
        f"""
        import sys
        import pytest

        @pytest.fixture
        def it(): pass

        @pytest.fixture
        def bpf_it(): pass

        {test}, pytestconfig):
            assert ("pytest_bpfmaps.report.kernel_log" in sys.modules) == {is_watched}
            assert "pytest_bpfmaps.kernel.splats" not in sys.modules
        """
    )
    pytester.runpytest_subprocess("-p", "no:xdist", "--bpf-kernel=host").assert_outcomes(passed=1)


def test_the_marker_is_known(pytester: pytest.Pytester) -> None:
    pytester.runpytest_subprocess("--markers").stdout.fnmatch_lines(
        ["@pytest.mark.bpf_kernel_warnings(*regexes, reason): kernel warnings that do not fail the test*"]
    )
