"""Tests the end of a run on several kernels, with reports as guests send them. See also test_vm_matrix.py."""

import json
import subprocess
import sys
from textwrap import dedent

import pytest
from shown_blocks import shows

# What a run on kernels 5.10 and 6.1 reports. A property names the kernel; a skip may name the missing
# feature.
CONFTEST = """
    import pytest

    def pytest_generate_tests(metafunc):
        metafunc.parametrize("kernel", ["5.10", "6.1"])

    def pytest_collection_modifyitems(items):
        for item in items:
            item.user_properties.append(("bpf_kernel", item.callspec.params["kernel"]))

    @pytest.fixture
    def lacks(request, kernel):
        def check(*kernels):
            if kernel in kernels:
                request.node.user_properties.append(("bpf_missing", "map type arena"))
                pytest.skip("no arena")
        return check
"""
SUITE = """
    def test_fine(kernel): pass
    def test_differs(kernel): assert kernel != "6.1"
    def test_newer(kernel, lacks): lacks("5.10")
"""
NEVER = "\ndef test_newest(kernel, lacks): lacks('5.10', '6.1')\n"


@pytest.fixture
def suite(pytester):
    pytester.makeconftest(CONFTEST)

    def make(more=""):
        pytester.makepyfile(test_suite=SUITE)
        with (pytester.path / "test_suite.py").open("a") as file:
            file.write(more)
        return pytester

    return make


def test_files_by_kernel_and_where_a_test_failed_first(suite):
    result = suite().runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=4, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*= tests by kernel (F failed, s skipped) =*",
            "               5.10   6.1",
            "test_suite.py  2 1s  2 1F",
            "all            2 1s  2 1F",
            "test_suite.py::test_differs: failed first on 6.1, passed on 5.10",
        ]
    )
    result.stdout.no_fnmatch_line("*ran on no kernel*")
    shows("virtual-machines.md", "tests by kernel", result.stdout.str())


def test_an_error_that_is_the_same_on_all_kernels_is_shown_once(suite):
    more = """
    import pytest

    @pytest.fixture
    def broken():
        raise RuntimeError("no folder")

    def test_needs_it(kernel, broken): pass

    @pytest.fixture
    def leaving(kernel):
        yield
        pytest.fail(f"descriptor {len(kernel)} of a map (map id {len(kernel)})", pytrace=False)

    def test_leaves(kernel, leaving): pass
    """
    result = suite(dedent(more)).runpytest_subprocess("-k", "needs_it or leaves")
    result.assert_outcomes(passed=2, errors=4)
    result.stdout.re_match_lines(
        [
            r"=+ ERRORS =+",
            r"_+ ERROR at setup of test_needs_it\[5\.10, 6\.1\] _+",
            r"E +RuntimeError: no folder",
            r"_+ ERROR at teardown of test_leaves\[5\.10, 6\.1\] _+",
            r"descriptor 4 of a map \(map id 4\)$",
            r"=+ tests by kernel",
            r"ERROR .*test_needs_it\[5\.10\]",
            r"ERROR .*test_needs_it\[6\.1\]",
            r"ERROR .*test_leaves\[5\.10\]",
            r"ERROR .*test_leaves\[6\.1\]",
        ]
    )
    assert result.stdout.str().count("ERROR at ") == 2


def test_quiet_shows_the_sum(suite):
    result = suite().runpytest_subprocess("-q")
    result.stdout.re_match_lines([r"all +2 1s +2 1F$"])
    result.stdout.no_fnmatch_line("test_suite.py  *")


def test_a_test_that_no_kernel_can_run_is_a_failure(suite):
    pytester = suite(NEVER)
    options = ["-k", "newest or fine"]
    result = pytester.runpytest_subprocess(*options)
    shows("expectations.md", "BPF features missing", result.stdout.str())
    result.stdout.fnmatch_lines(
        [
            "test_suite.py::test_newest: ran on no kernel, each lacks something it needs",
            "FAILED: a test ran on no kernel",
            "  -> add a kernel that has what is missing, or list it in bpf_allow_never_ran",
        ]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED

    pytester.makeini("[pytest]\nbpf_allow_never_ran = */other.py::* test_suite.py::test_new*")
    result = pytester.runpytest_subprocess(*options)
    result.stdout.no_fnmatch_line("*ran on no kernel*")
    assert result.ret == pytest.ExitCode.OK


def test_the_summary_as_json_and_as_markdown(suite):
    pytester = suite(NEVER)
    pytester.runpytest_subprocess("--bpf-summary=out.json")
    facts = json.loads((pytester.path / "out.json").read_text())
    assert facts["kernels"] == ["5.10", "6.1"]
    assert facts["files"]["test_suite.py"]["5.10"] == {"passed": 2, "skipped": 2}
    assert facts["tests"]["test_suite.py::test_differs"] == {"5.10": "passed", "6.1": "failed"}
    assert facts["never_ran"] == ["test_suite.py::test_newest"]
    assert facts["reasons"]["test_suite.py::test_differs"]["6.1"].startswith("AssertionError: ")
    assert facts["missing"]["map type arena"]["test_suite.py::test_newest"] == ["5.10", "6.1"]

    page = pytester.path / "step"
    page.write_text("before\n")
    pytester.runpytest_subprocess("--bpf-summary=step")
    assert page.read_text().splitlines() == [
        "before",
        "### BPF tests: 1 failed, 4 passed, 3 skipped",
        "",
        "| tests | 5.10 | 6.1 |",
        "| --- | --- | --- |",
        "| test_suite.py | 2 2s | 2 1F 1s |",
        "| all | 2 2s | 2 1F 1s |",
        "",
        "F failed, s skipped",
        "",
        "**Failed**",
        "",
        "- `test_suite.py::test_differs` on 6.1 (passed on 5.10): AssertionError: assert '6.1' != '6.1'",
        "",
        "**Ran on no kernel**",
        "",
        "- `test_suite.py::test_newest`",
        "",
        "**Missing features**",
        "",
        "- map type arena: 2 tests (5.10, 6.1)",
    ]


@pytest.mark.parametrize("name", ["missing/out.json", "folder"])
def test_a_summary_that_cannot_be_written_is_a_line(suite, name):
    pytester = suite()
    pytester.mkdir("folder")
    result = pytester.runpytest_subprocess(f"--bpf-summary={name}", "--deselect=test_suite.py::test_differs")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            f"bpfmaps: cannot write the summary to *{name}: *director*",
            "  -> make room, or name another file: --bpf-summary=FILE",
        ]
    )


def test_the_configuration_names_the_summary_from_the_root_folder(suite):
    pytester = suite()
    pytester.makeini("[pytest]\nbpf_summary = out.json\n")
    inner = pytester.mkdir("inner")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", ".."], cwd=inner, capture_output=True, check=False, text=True
    )
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert (pytester.path / "out.json").exists()
    assert list(inner.iterdir()) == []


def test_many_files_that_passed_are_one_row_and_failures_come_first(pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(**{f"test_{i:02}": "def test_fine(kernel): pass" for i in range(31)})
    pytester.makepyfile(test_zz='def test_bad(kernel): assert kernel != "6.1"')
    pytester.makepyfile(test_yy='def test_new(kernel, lacks): lacks("5.10")')
    result = pytester.runpytest_subprocess()
    result.stdout.fnmatch_lines(
        [
            "test_zz.py                        1     1F",
            "test_yy.py                       1s      1",
            "31 files in which all passed     31     31",
            "all                           32 1s  32 1F",
        ]
    )
    result.stdout.no_fnmatch_line("test_00.py  *")


def test_one_kernel_needs_no_table(pytester):
    pytester.makepyfile("def test_runs(bpf_kernel): pass")
    result = pytester.runpytest_subprocess()
    result.stdout.no_fnmatch_line("*tests by kernel*")
