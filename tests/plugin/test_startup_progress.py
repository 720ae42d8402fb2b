"""Tests what a terminal shows while guests start, with and without -q."""

import sys
from pathlib import Path

import pytest
from person import Person

CONFTEST = """
import time
from types import SimpleNamespace
from pytest_bpfmaps.matrix.guest_activity import GuestActivity
from pytest_bpfmaps.matrix.startup_progress import StartupProgress
from pytest_bpfmaps.vm.gateway.journal import Journal, JournalEntry, write
from pytest_bpfmaps.vm.protocol.phases import IS_PREPARED

class Node:
    gateway = SimpleNamespace(id="6.1", spec=SimpleNamespace(id="6.1"))

def pytest_sessionstart(session):
    journal, activity = Journal(), GuestActivity()
    activity.begin(Node())
    write(journal.path, JournalEntry("6.1", "doing", text=f"{IS_PREPARED}, once: boot"))
    progress = StartupProgress(session.config, journal, activity, lambda show: show())
    session.config.pluginmanager.register(progress)
    progress.begin()
    end = time.monotonic() + (2 if session.config.get_verbosity() < -1 else 120)
    while not progress._shown and time.monotonic() < end:
        time.sleep(0.1)
"""
PREPARED = "6.1 is prepared"


@pytest.fixture
def screen(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns what a terminal got from a run with these options."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    command = [sys.executable, "-m", "pytest", *request.param, str(tmp_path)]
    person = Person(command)
    try:
        return person.sees(r"100%\]|ERROR")
    finally:
        person.end()


@pytest.mark.parametrize("screen", [["-q"]], indirect=True)
def test_with_q_only_a_line_that_goes_again(screen: str) -> None:
    assert f"bpfmaps: {PREPARED} (for " in screen
    assert "bpfmaps" not in screen.rpartition("\r")[2]  # the next line overwrites it
    assert "\n" not in screen


@pytest.mark.parametrize("screen", [["-qq"]], indirect=True)
def test_with_qq_nothing(screen: str) -> None:
    assert "bpfmaps" not in screen


@pytest.mark.parametrize("screen", [[]], indirect=True)
def test_usually_a_line_that_stays_too(screen: str) -> None:
    assert f"bpfmaps: {PREPARED}, once: boot\r\n" in screen
    assert f"bpfmaps: {PREPARED} (for " in screen
