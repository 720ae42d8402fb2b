"""Tests that runs which end early leave nothing: by Ctrl-C, by a failure, or killed before another run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import is_running

from pytest_bpfmaps.triggers.cgroup import root

pytestmark = pytest.mark.bpf_kernels("host")  # whole runs of pytest are too slow in an emulated guest

TEST = """
    import time
    from pathlib import Path

    def test_everything(bpf_netns, bpf_cgroup, bpf_process):
        left, right = bpf_netns(), bpf_netns()
        near, far = left.veth_to(right)
        inside = left.Popen(["sleep", "6000"])
        process = bpf_process(["sleep", "6000"])
        bpf_cgroup.add(process.pid)
        process.resume()
        bpf_cgroup.child("inner").add(inside.pid)
        Path("made").write_text(f"{left.inode} {inside.pid} {process.pid}")
        END
"""


@pytest.fixture
def run(pytester):
    """Starts pytest with a test that makes one of each resource, and then does `end`."""

    def start(end):
        pytester.makepyfile(TEST.replace("END", end))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        # a shell's background command ignores SIGINT, and its children would, too
        command = ["env", "--default-signal=INT", *command]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    return start


@pytest.fixture
def left():
    """Returns what exists of a run, by its process id. Other runs on this machine have their own."""

    def of(pytest_run):
        own = f"bpfmaps-*{pytest_run.pid}-*"
        return {str(p) for folder in (Path("/run/netns"), root()) for p in folder.glob(own)}

    return of


def wait_until(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def holders(inode):
    """Returns the processes in a network namespace."""
    found = []
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found += [link.parts[2]] if os.stat(link).st_ino == inode else []
        except OSError:
            continue
    return found


def made():
    path = Path("made")
    return path.exists() and len(path.read_text().split()) == 3


@pytest.mark.parametrize("end", ["time.sleep(6000)", "assert 0"])
def test_ctrl_c_and_failure(bpf_cgroup, run, left, end):
    with run(end) as pytest_run:
        wait_until(made)
        if "sleep" in end:
            assert len(left(pytest_run)) == 3
            pytest_run.send_signal(signal.SIGINT)
        assert pytest_run.wait(600) != 0
    inode, *pids = map(int, Path("made").read_text().split())
    assert left(pytest_run) == set()
    assert holders(inode) == []
    assert not any(map(is_running, pids))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run(bpf_cgroup, run, left, number):
    with run("time.sleep(6000)") as pytest_run:
        wait_until(made)
        os.killpg(pytest_run.pid, number)
    inode, *pids = map(int, Path("made").read_text().split())
    wait_until(lambda: not any(map(is_running, pids)))
    wait_until(lambda: left(pytest_run) == set())
    wait_until(lambda: holders(inode) == [])  # what removed them may be ending just now


def test_the_run_after_one_that_was_killed_with_all_that_watched_it(bpf_cgroup, run, left):
    with run("time.sleep(6000)") as pytest_run:
        wait_until(made)
        for pid in map(
            int, Path(f"/proc/{pytest_run.pid}/task/{pytest_run.pid}/children").read_text().split()
        ):
            if "bpfmaps-reaper" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)
        assert left(pytest_run)
        pytest_run.kill()
    inode, inside, paused = map(int, Path("made").read_text().split())
    wait_until(lambda: not is_running(paused))
    assert holders(inode) == [str(inside)]
    Path("made").unlink()

    with run("pass") as next_run:
        assert next_run.wait(600) == 0
    assert left(pytest_run) == left(next_run) == set()
    wait_until(lambda: not is_running(inside))
    assert holders(inode) == []
