"""Tests waits for other processes: they end, and the error names the process that is waited for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import is_running

from pytest_bpfmaps.cache.locks import holder, only_one
from pytest_bpfmaps.errors import VmError, VmTimeoutError
from pytest_bpfmaps.vm.boot import warm
from pytest_bpfmaps.vm.machine.child_process import stopped_process


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_the_process_that_holds_a_lock_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import sys, time; from pathlib import Path; from pytest_bpfmaps.cache.locks import only_one\n"
        f"with only_one(Path({str(path)!r}), 'wait', 60): print(flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        other.send_signal(signal.SIGSTOP)
        try:
            assert holder(path) == other.pid
            with pytest.raises(VmTimeoutError) as caught, only_one(path, "make the state of 6.1", 0.2):
                pass
        finally:
            other.kill()
    assert str(caught.value).splitlines() == [
        f"cannot make the state of 6.1: {path}: process {other.pid} has held this lock for more than 0.2 s",
        f"  -> end process {other.pid}, if it hangs (ps -o pid,stat,cmd shows a stopped one as T)",
    ]
    with only_one(path, "make the state of 6.1", 60):  # the remedy that the message names
        assert holder(path) == os.getpid()
    assert holder(path) is None


def test_a_stopped_process_of_a_group_is_found() -> None:
    program = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(1000)'])"
    )
    with subprocess.Popen([sys.executable, "-c", program], process_group=0) as script:
        children = Path(f"/proc/{script.pid}/task/{script.pid}/children")
        try:
            until(children.read_text)
            assert stopped_process(script.pid) is None
            child = int(children.read_text())
            os.kill(child, signal.SIGSTOP)
            until(lambda: stopped_process(script.pid) == child)
            os.kill(child, signal.SIGCONT)
            until(lambda: stopped_process(script.pid) is None)
        finally:
            os.killpg(script.pid, signal.SIGKILL)


def test_the_trial_of_pytest_dies_with_the_process_that_makes_a_state() -> None:
    program = "from pytest_bpfmaps.vm.boot import warm; warm.preloaded()"
    trials: list[str] = []
    with subprocess.Popen([sys.executable, "-c", program]) as maker:
        children = Path(f"/proc/{maker.pid}/task/{maker.pid}/children")
        try:
            until(lambda: trials.extend(children.read_text().split()) or trials)
        finally:
            maker.kill()
    (trial,) = trials
    until(lambda: not is_running(trial))


def test_a_trial_of_pytest_that_takes_too_long_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It hangs in a package. A running thread is not always shown, because its stack changes meanwhile."""
    (tmp_path / "hangs-1.dist-info").mkdir()
    (tmp_path / "pyroute2.py").write_text("import time\ntime.sleep(1000)\n")
    monkeypatch.syspath_prepend(tmp_path)
    seconds, details = 0.5, ""
    while "pyroute2.py" not in details:  # a busy machine may not have reached it yet
        seconds *= 2
        monkeypatch.setattr(warm, "PRELOAD_SECONDS", seconds)
        with pytest.raises(VmError, match="a trial of pytest in a process failed") as caught:
            warm.preloaded()
        details = str(caught.value.details)
    assert re.match(r"Timeout \(0:\d\d:\d\d(\.\d+)?\)!\n", details)
    assert "preload.py" in details
