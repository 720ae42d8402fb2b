"""Builds the agents on this machine, before any guest starts them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_sessionstart(session: pytest.Session) -> None:
    """Runs make; not in a guest, whose compiler is emulated."""
    if not hasattr(session.config, "workerinput"):
        subprocess.run(["make", "--silent", "-C", HERE], check=True)
