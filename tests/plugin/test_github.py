"""Tests what a step of GitHub Actions shows of failures."""

import pytest
from two_kernels import CONFTEST


@pytest.fixture(autouse=True)
def step(pytester, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path.parent))
    pytester.makeconftest(CONFTEST)
    return pytester


def annotations(result):
    return [line for line in result.outlines if line.startswith("::error ")]


def test_the_same_failure_on_two_kernels_is_one_annotation(step):
    step.makepyfile(
        test_it="def test_ok(kernel): pass\n\ndef test_bad(kernel):\n    assert 1 == 2, '50% of:\\nit'"
    )
    result = step.runpytest_subprocess()
    file = f"{step.path.name}/test_it.py"
    assert annotations(result) == [
        f"::error file={file},line=4,title=test_it.py%3A%3Atest_bad [5.10%2C 6.1]"
        "::AssertionError: 50%25 of:%0A  it%0Aassert 1 == 2"
    ]


def test_a_refused_line_of_c_is_annotated_and_the_tests_line_too(step):
    step.mkdir("bpf")
    (step.path / "bpf" / "wrong.bpf.c").write_text("int first;\nint second = no_such_name;\n")
    step.makepyfile(test_it='def test_it(bpf):\n    bpf.compile("wrong.bpf.c")\n')
    found = annotations(step.runpytest_subprocess())
    folder = step.path.name
    assert [line.partition("::Comp")[0].partition("::cannot")[0] for line in found] == [
        f"::error file={folder}/bpf/wrong.bpf.c,line=2,title=test_it.py%3A%3Atest_it [host]",
        f"::error file={folder}/test_it.py,line=2,title=test_it.py%3A%3Atest_it [host]",
    ]
    assert all("no_such_name" in line for line in found)


def test_a_header_that_clang_names_in_a_note_is_not_annotated(step):
    code = "#include <linux/bpf.h>\\nint verdict = XDP_PAS;\\n"  # clang says where XDP_PASS is declared
    step.makepyfile(test_it=f"def test_it(bpf):\n    bpf.load(code='{code}')\n")
    (line,) = annotations(step.runpytest_subprocess())
    assert line.startswith(f"::error file={step.path.name}/test_it.py,line=2,title=")
    assert "cannot compile inline.bpf.c: line 2: use of undeclared identifier 'XDP_PAS'" in line


def test_a_group_of_errors_has_each_of_them(step):
    step.makepyfile(
        test_it="def test_it():\n    raise ExceptionGroup('two', [ValueError('a'), OSError('b')])\n"
    )
    (line,) = annotations(step.runpytest_subprocess())
    assert line.endswith("::ExceptionGroup: two (2 sub-exceptions)%0AValueError: a%0AOSError: b")


def test_a_file_that_cannot_be_collected_is_annotated(step):
    step.makepyfile(test_it="import no_such_module_anywhere")
    (line,) = annotations(step.runpytest_subprocess())
    assert line.startswith(f"::error file={step.path.name}/test_it.py,line=1,title=test_it.py::")


def test_nothing_elsewhere(step, monkeypatch):
    monkeypatch.delenv("GITHUB_ACTIONS")
    step.makepyfile("def test_bad(): assert 0")
    assert annotations(step.runpytest_subprocess()) == []
