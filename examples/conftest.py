"""Builds the agents on this machine, before any guest starts them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_sessionstart(session: pytest.Session) -> None:
    """Runs make; not in a guest, whose compiler is emulated."""
    if not hasattr(session.config, "workerinput"):
        build()


def build() -> None:
    """Runs make. Raises pytest.UsageError where it is missing, or fails."""
    missing = [
        name for name in ("make", "gcc", os.environ.get("CLANG", "clang")) if shutil.which(name) is None
    ]
    if missing:
        names = " ".join(missing)
        raise pytest.UsageError(f"cannot build {HERE}: there is no {names}\n  -> apt-get install {names}")
    done = subprocess.run(["make", "--silent", "-C", HERE], check=False)
    if done.returncode != 0:
        raise pytest.UsageError(
            f"cannot build {HERE}: make ended with exit status {done.returncode}, and says why above\n"
            "  -> install what it misses: README.md beside it names the packages"
        )
