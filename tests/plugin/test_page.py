"""Tests ``--bpf-report``: what the page of a run has, what is kept, and what can go wrong."""

from __future__ import annotations

import json
import re

import pytest
from two_kernels import CONFTEST

SUITE = """
    import pytest

    def test_fine(kernel): pass

    def test_differs(kernel):
        print("said <b>here</b>")
        assert kernel != "6.1", "not & here"

    def test_lacks(request, kernel):
        if kernel == "5.10":
            request.node.user_properties.append(("bpf_missing", "helper bpf_x"))
            pytest.skip("no helper")

    @pytest.mark.skip(reason="not today")
    def test_plain(): pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=SUITE)
    return pytester


def text_of(page: str) -> str:
    """Returns what a reader sees, with one space between words."""
    return " ".join(re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL).split())


def section(page: str, name: str) -> str:
    """Returns what a reader sees of a part of the page."""
    return text_of(page.partition(f'id="{name}">')[2].partition("</section>")[0])


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
def test_what_the_page_has(suite: pytest.Pytester, workers: tuple[str, ...]) -> None:
    result = suite.runpytest_subprocess("--bpf-report=out", *workers)
    result.assert_outcomes(passed=4, failed=1, skipped=2)
    result.stdout.fnmatch_lines([f"bpfmaps: the report of this run is {suite.path}/out/index.html"])
    page = (suite.path / "out" / "index.html").read_text()
    shown = text_of(page)
    assert f"{suite.path.name}: 1 test failed" in shown
    assert "test_suite.py 2 1s 2 1F" in section(page, "kernels")
    assert "1 more test is no BPF test: 1 skipped" in section(page, "kernels")
    failures = section(page, "failures")
    assert "test_suite.py::test_differs 6.1 AssertionError: not &amp; here" in failures
    assert "It passed on 5.10." in failures
    assert "E AssertionError: not &amp; here" in failures
    assert "Captured stdout call said &lt;b&gt;here&lt;/b&gt;" in failures
    assert "lacks helper bpf_x 1 test: 5.10 test_suite.py::test_lacks" in section(page, "skips")
    assert "not today 1 test test_suite.py::test_plain" in section(page, "skips")
    assert "Nothing was measured" in section(page, "coverage")
    assert section(page, "cost").endswith("The run loaded no program.")
    assert section(page, "maps").endswith("The run loaded no map.")
    assert "test_differs ✓ F" in section(page, "tests-title")
    assert "Over the recorded runs" not in shown
    assert not re.search(r"(src|href)=\"(?!#)", page)


def test_the_title_says_why_the_count_below_is_another(suite: pytest.Pytester) -> None:
    """A test counts once in the title, and once for each kernel in the tiles and the table."""
    suite.makepyfile(
        test_suite="""
        import pytest

        def test_differs(kernel): assert 0
        def test_is_fine(kernel): assert kernel
        @pytest.fixture
        def breaks(): assert 0
        def test_needs_it(kernel, breaks): pass
    """
    )
    suite.runpytest_subprocess("--bpf-report=out").assert_outcomes(passed=2, failed=2, errors=2)
    shown = text_of((suite.path / "out" / "index.html").read_text())
    assert f"{suite.path.name}: 2 tests failed, 4 times" in shown
    assert "4 failed 2 passed" in shown


def test_charts_of_earlier_runs(suite: pytest.Pytester) -> None:
    """The key of the configuration file means a folder below the root folder."""
    suite.makefile(".toml", pytest='[pytest]\nbpf_report = "out"\n')
    (suite.path / "below").mkdir()
    for _ in range(2):
        suite.runpytest_subprocess("-q")
    suite.chdir()
    page = (suite.path / "out" / "index.html").read_text()
    assert "Tests of 2 runs" in section(page, "kernels")
    first, second = sorted((suite.path / "out" / "runs").iterdir())
    assert json.loads(first.read_text())["outcomes"] == {
        "": {"skipped": 1},
        "5.10": {"passed": 2, "skipped": 1},
        "6.1": {"passed": 2, "failed": 1},
    }
    assert first.name < second.name


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is no JSON"),
        ("[]", "it is no record of a run"),
        ('{"format": 2}', "it has a newer format -> update pytest-bpfmaps"),
        ("\udcff", "'utf-8' codec can't decode"),
    ],
)
def test_a_damaged_record(suite: pytest.Pytester, text: str, why: str) -> None:
    folder = suite.path / "out" / "runs"
    folder.mkdir(parents=True)
    damaged = folder / "20260101T000000.000000Z.json"
    damaged.write_text(text, errors="surrogateescape")
    before = damaged.read_bytes()
    result = suite.runpytest_subprocess("--bpf-report=out", "-k", "fine")
    result.assert_outcomes(passed=2, deselected=5)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            f"bpfmaps: the charts leave out an earlier run: {damaged} can't be read: {why}*",
            "  -> get the file back, or remove it",
            "bpfmaps: the report of this run is *",
        ]
    )
    assert damaged.read_bytes() == before
    assert f"{damaged} can" in text_of((suite.path / "out" / "index.html").read_text())


def test_the_folder_is_a_file(suite: pytest.Pytester) -> None:
    (suite.path / "out").write_text("mine")
    result = suite.runpytest_subprocess("--bpf-report=out", "-k", "fine")
    result.assert_outcomes(passed=2, deselected=5)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            f"bpfmaps: cannot write the report of this run to {suite.path}/out: *",
            "  -> make room, or name another folder: --bpf-report=DIR",
        ]
    )
    assert (suite.path / "out").read_text() == "mine"


def test_no_room(suite: pytest.Pytester) -> None:
    """The kernel refuses to make a file as long as the page. The page of an earlier run stays."""
    suite.runpytest_subprocess("--bpf-report=out", "-k", "fine").assert_outcomes(passed=2, deselected=5)
    page = suite.path / "out" / "index.html"
    before = page.read_text()
    with (suite.path / "conftest.py").open("a") as file:
        file.write("\nimport resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n")
    result = suite.runpytest_subprocess("--bpf-report=out", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=4, failed=1, skipped=2)
    result.stdout.fnmatch_lines([f"bpfmaps: cannot write the report of this run to {page.parent}: *large*"])
    assert page.read_text() == before
    assert [each.name for each in page.parent.iterdir() if each.name.startswith(".")] == []


def test_without_jinja(suite: pytest.Pytester) -> None:
    suite.makepyfile(jinja2="raise ImportError('there is none')")
    result = suite.runpytest_subprocess("--bpf-report=out", "-k", "fine")
    result.assert_outcomes(passed=2, deselected=5)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "bpfmaps: cannot write the report of this run: Jinja2 is not installed",
            "  -> pip install 'pytest-bpfmaps[html]'",
        ]
    )


def test_a_file_that_can_not_be_collected(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_broken="import no_such_module_here")
    result = suite.runpytest_subprocess("--bpf-report=out")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    page = (suite.path / "out" / "index.html").read_text()
    assert "test_broken.py while it was collected" in section(page, "failures")
    assert "No module named &#39;no_such_module_here&#39;" in section(page, "failures")
    assert "The run was interrupted." in text_of(page)
    assert not (suite.path / "out" / "runs").exists()


def test_what_only_looks_writes_nothing(suite: pytest.Pytester) -> None:
    suite.runpytest_subprocess("--bpf-report=out", "--collect-only")
    assert not (suite.path / "out").exists()
