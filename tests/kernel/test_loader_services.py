"""Tests what an agent finds that systemd would start: /run, NOTIFY_SOCKET, its control group."""

import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps.kernel.release import is_emulated

NOTIFIES = """
import os, socket, time
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as at:
    at.sendto(b"STATUS=loading", os.environ["NOTIFY_SOCKET"])
    at.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(60)
"""


def test_a_file_in_run(bpf, tmp_path):
    folder = "/run" if is_emulated() else str(tmp_path)  # on the host it would be the host's
    agent = bpf.start(["sh", "-c", f"mkdir {folder}/agent && echo $$ > {folder}/agent/pid; exec sleep 60"])
    path = f"{folder}/agent/pid"
    bpf.wait_until(lambda: os.path.exists(path) and Path(path).read_text() == f"{agent.pid}\n", timeout=10)
    if is_emulated():
        assert os.stat("/var/run").st_ino == os.stat("/run").st_ino


def test_it_says_that_it_is_ready(bpf, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as at:
        at.bind(path)
        agent = bpf.start(
            [sys.executable, "-c", NOTIFIES],
            env={**os.environ, "NOTIFY_SOCKET": path},
            ready=lambda _: select.select([at], [], [], 0)[0] and b"READY=1" in at.recv(4096),
        )
        assert agent.pids == [agent.pid]


def test_control_groups_of_its_own(bpf, bpf_cgroup):
    child = f"{bpf_cgroup.path}/child"
    script = f"mkdir {child} && echo $$ > {child}/cgroup.procs; cat /proc/self/cgroup"
    agent = bpf.start(["sh", "-c", script], cgroup=bpf_cgroup.path)
    assert agent.wait() == 0, agent.stderr
    assert agent.stdout.strip().endswith(f"{bpf_cgroup.path.name}/child")
    os.rmdir(child)


def test_namespaces_of_a_container(bpf):
    """An agent may start containers: user namespaces, which the kernel refuses in a chroot."""
    command = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "id", "-u"]
    if not is_emulated() and subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this system allows no user namespaces")
    agent = bpf.start(command)
    assert (agent.wait(), agent.stdout, agent.stderr) == (0, "0\n", "")
