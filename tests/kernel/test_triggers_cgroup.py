"""Tests control groups for tests: which processes are in them, and that they are removed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import is_running

from pytest_bpfmaps import ClosedError, TriggerError, UnsupportedError
from pytest_bpfmaps.triggers import cgroup as cgroup_module
from pytest_bpfmaps.triggers.cgroup import find_mount, new_cgroup, own_folder, root


def left_over():
    return {p.name for p in root().glob("bpfmaps-*")}


def test_a_new_cgroup_is_empty_and_of_version_2(bpf_cgroup):
    assert bpf_cgroup.path.parent == root()
    assert f"-{os.getpid()}-" in bpf_cgroup.path.name
    assert bpf_cgroup.pids == []
    assert (bpf_cgroup.path / "cgroup.procs").exists()
    assert os.fstat(bpf_cgroup.fd).st_ino == bpf_cgroup.id == bpf_cgroup.path.stat().st_ino


def test_this_process_goes_in_and_comes_back(bpf_cgroup):
    home = own_folder()
    with bpf_cgroup.enter():
        assert own_folder() == bpf_cgroup.path
        assert bpf_cgroup.pids == [os.getpid()]
        with bpf_cgroup.child("inner").enter() as inner:
            assert own_folder() == inner.path
        assert own_folder() == bpf_cgroup.path
    assert own_folder() == home
    with pytest.raises(ZeroDivisionError), bpf_cgroup.enter():
        _ = 1 / 0
    assert own_folder() == home


def test_another_process_is_moved_in(bpf_cgroup, bpf_process):
    process = bpf_process(["cat", "/proc/self/cgroup"])
    bpf_cgroup.add(process.pid)
    assert bpf_cgroup.pids == [process.pid]
    assert process.run() == 0
    assert f"/{bpf_cgroup.path.name}\n" in process.output.decode()


def test_a_process_that_is_not_there(bpf_cgroup):
    with pytest.raises(TriggerError, match=r"cannot move process 99999999 to cgroup .*: \[Errno 3\]"):
        bpf_cgroup.add(99999999)


def test_it_goes_with_all_that_is_inside(bpf_cgroup):
    home, before = own_folder(), left_over()
    with new_cgroup() as group:
        inner = group.child("inner")
        with subprocess.Popen(["sleep", "60"]) as sleeper:
            inner.add(sleeper.pid)
            group.add(0)
            group.close()
            assert sleeper.wait(600) == -signal.SIGKILL
        group.close()
    assert own_folder() == home
    assert left_over() == before
    for closed in (group, inner):
        with pytest.raises(ClosedError, match="removed already"):
            _ = closed.fd


def test_what_a_killed_run_left_goes_with_the_next_one(bpf_cgroup):
    code = (
        "import subprocess, sys\n"
        "from pytest_bpfmaps.triggers.cgroup import new_cgroup\n"
        "group = new_cgroup()\n"
        "null = subprocess.DEVNULL\n"
        "sleeper = subprocess.Popen(['sleep', '60'], stdin=null, stdout=null)\n"
        "group.child('inner').add(sleeper.pid)\n"
        "print(group.path, sleeper.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as killed:
        path, sleeper = killed.stdout.readline().split()
        with new_cgroup():  # its process lives, so it must not be removed
            assert Path(path).exists()
        killed.kill()
    assert Path(path).exists()
    with new_cgroup():
        assert not Path(path).exists()
    assert not is_running(sleeper)


def test_a_host_with_version_1_only_is_told_so(monkeypatch, tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text("36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices\n")
    monkeypatch.setattr(cgroup_module, "MOUNTINFO", mounts)
    cgroup_module._mount.cache_clear()
    try:
        with pytest.raises(
            UnsupportedError, match=r"(?s)no cgroup v2 hierarchy is mounted.*mount -t cgroup2"
        ):
            own_folder()
    finally:
        cgroup_module._mount.cache_clear()


FORKS = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; wait"


def test_it_goes_while_a_process_starts_others(bpf_cgroup):
    """A process that is killed may have started another one since the processes were listed."""
    for _ in range(30):
        with new_cgroup() as group:
            command = f"echo 0 >{group.path}/cgroup.procs; {FORKS}"
            shell = subprocess.Popen(["sh", "-c", command])
            while not group.pids:
                assert shell.poll() is None
            group.close()
            assert shell.wait(600) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        (["41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"], ("/sys/fs/cgroup/unified", "/")),
        (["41 31 0:38 / /a\\040b rw,relatime shared:4 - cgroup2 none rw,nsdelegate"], ("/a b", "/")),
        (
            ["1 2 0:3 /docker/x /part rw - cgroup2 c rw", "4 5 0:3 / /whole rw - cgroup2 c rw"],
            ("/whole", "/"),
        ),
        (["1 2 0:3 /docker/x /part rw - cgroup2 c rw"], ("/part", "/docker/x")),
    ],
)
def test_the_mount_is_found(lines, where):
    assert find_mount("\n".join(lines)) == (Path(where[0]), where[1])
