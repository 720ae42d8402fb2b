"""Tests what a run of the examples says on a machine that can't build them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "examples", "--collect-only", "-p", "no:cacheprovider"]
    variables = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


def test_without_make(tmp_path: Path) -> None:
    for name in ("gcc", "clang"):
        (tmp_path / name).touch(mode=0o755)
    done = run(PATH=str(tmp_path))
    assert done.returncode == 4
    assert done.stderr.strip() == (
        f"ERROR: cannot build {ROOT}/examples: there is no make\n  -> apt-get install make"
    )


def test_when_make_fails(tmp_path: Path) -> None:
    done = run(BUILD=str(tmp_path), CLANG="false")
    assert done.returncode == 4
    assert "make ended with exit status 2, and says why above\n  -> " in done.stderr
