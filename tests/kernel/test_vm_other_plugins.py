"""Tests other plugins of pytest in runs that have guests."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from caches import CACHE

PLUGINS = Path(sys.prefix, "other-plugins")

pytestmark = pytest.mark.skipif(not PLUGINS.exists(), reason=f"no folder {PLUGINS}: ci/setup makes it")


@pytest.fixture(autouse=True)
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    monkeypatch.setenv("PYTHONPATH", str(PLUGINS))
    pytester.makepyfile(
        measured=f"""
        import os

        def where():
            if os.uname().release != {os.uname().release!r}:
                return "guest"
            return "host"

        def nowhere():
            return None
        """,
        test_suite="""
        from pathlib import Path
        import pytest
        from measured import where

        FAILED = Path("failed")

        @pytest.mark.flaky(reruns=1)
        def test_fails_once(bpf):
            if not FAILED.exists():
                FAILED.touch()
                pytest.fail(where())

        def test_plain(tmp_path):
            assert where() == "host"
        """,
    )


def lines_not_run(folder: Path) -> list[int]:
    report = json.loads((folder / "coverage.json").read_text())
    lines: list[int] = report["files"]["measured.py"]["missing_lines"]
    return lines


@pytest.mark.parametrize("more", [(), ("-n1",)])
def test_coverage_is_of_all_workers_and_failures_run_again(
    pytester: pytest.Pytester, more: tuple[str, ...]
) -> None:
    measure = ["--cov=measured", "--cov-report=json"]
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", *measure, *more)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*2 passed, 1 rerun*"])
    assert lines_not_run(pytester.path) == [9]
    assert not (pytester.path / "failed").exists(), "the guest has its own files"
    assert [*pytester.path.glob(".coverage*")] == [pytester.path / ".coverage"]


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can give up capabilities"
)
def test_coverage_where_nobody_asked_for_a_guest(pytester: pytest.Pytester) -> None:
    command = [
        *("setpriv", "--bounding-set=-all", sys.executable, "-m", "pytest"),
        *("--cov=measured", "--cov-report=json", "--bpf-vm-timeout=120"),
    ]
    pytester.run(*command).assert_outcomes(passed=2)
    assert lines_not_run(pytester.path) == [9]
