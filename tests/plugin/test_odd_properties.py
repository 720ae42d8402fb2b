"""Tests that what a test adds to its ``user_properties``, and is no pair, harms no report."""

from __future__ import annotations

import pytest

TESTS = """
def test_passes(bpf, request):
    request.node.user_properties += [7, None, ("a", "b", 3), ([], 3), ("kept", 1)]

def test_fails(bpf, request):
    request.node.user_properties.append(None)
    assert 0

def test_skips(bpf, request):
    import pytest
    request.node.user_properties.append("ab")
    pytest.skip("why not")
"""


def test_what_is_no_pair_is_left_out(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("--bpf-kernel=host", "--bpf-report=page", "--bpf-artifacts=kept")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert "Traceback" not in result.stderr.str()
    assert "test_fails" in (pytester.path / "page" / "index.html").read_text()
