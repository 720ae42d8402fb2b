"""Tests that ci/hosts leaves nothing behind, however it ends. Its processes are real ones."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import processes
processes.GRACE = 0.5
folder = Path(sys.argv[2])

def work():
    try:
        # a command that leaves a process behind in a session of its own, and one that ignores SIGTERM
        script = "setsid sleep 600 & (trap '' TERM; sleep 600; sleep 600) & echo ready; " + sys.argv[3]
        return processes.run(["bash", "-c", script], folder / "log", 600, False, {"PATH": "/usr/bin:/bin"})
    finally:
        (folder / "torn down").write_text(str(len(processes.descendants(processes.os.getpid()))))

sys.exit(processes.guarded(work))
"""
ROOTS = Path(__file__).parents[2] / "ci/roots"


@pytest.fixture
def start(tmp_path):
    """Starts the work above. Its command ends with the given shell text."""
    return lambda end: subprocess.Popen([sys.executable, "-c", WORK, str(ROOTS), str(tmp_path), end])


def wait_for(condition):
    for _ in range(12000):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("nothing came of it in ten minutes")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_every_process_and_the_teardown_runs(start, tmp_path, number):
    with start("sleep 600") as process:
        wait_for(lambda: (tmp_path / "log").exists() and "ready" in (tmp_path / "log").read_text())
        os.kill(process.pid, number)
    wait_for((tmp_path / "torn down").exists)
    assert (tmp_path / "torn down").read_text() == "0"
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)


def test_what_a_command_leaves_behind_ends_with_it(start, tmp_path):
    with start("exit 3") as process:
        pass
    assert process.returncode == 3
    assert (tmp_path / "torn down").read_text() == "0"


def test_orphans_that_ended_do_not_stay_as_zombies(start):
    orphan = "orphan=$( (sleep 0.2 >&2 & echo $!) ); "
    with start(
        orphan + "test -e /proc/$orphan && while test -e /proc/$orphan; do sleep 0.1; done; exit 4"
    ) as process:
        pass
    assert process.returncode == 4
