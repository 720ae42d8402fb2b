"""Tests how processes that `bpf.start` starts end: by themselves, with the test, or by the OOM killer."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pytest
from processes import is_running

from pytest_bpfmaps import CaptureTimeoutError, LoaderError

FOREVER = "while :; do sleep 60; done"
LOSES_TWO = """
mkfifo $$
exec 3<>$$
left=2
lose() { echo lost; left=$((left - 1)); [ $left -gt 0 ] || trap - TERM; }
trap lose TERM
echo on
while :; do read -r -t 0.2 -u 3; done
"""
REMOVES = """
import signal, time
def end(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    until = time.process_time() + 1
    while time.process_time() < until:
        pass
    print("removed", flush=True)
    raise SystemExit
signal.signal(signal.SIGTERM, end)
print("on", flush=True)
time.sleep(60)
"""


class TestEnds:
    def test_it_ignores_sigterm(self, bpf):
        agent = bpf.start(["sh", "-c", f"trap '' TERM; echo on; {FOREVER}"], ready="on")
        agent.terminate()
        with pytest.raises(LoaderError) as failed:
            agent.wait(0.3)
        assert "still run" in str(failed.value)
        assert f", because process {agent.pid} ignores SIGTERM\n" in str(failed.value)
        assert "-> agent.kill()" in str(failed.value)
        agent.kill()
        assert agent.wait() == -signal.SIGKILL

    def test_teardown_tells_that_it_had_to_kill(self, bpf, monkeypatch):
        monkeypatch.setattr("pytest_bpfmaps.loaders.running_process._STOP", 0.3)
        agent = bpf.start(["sh", "-c", f"trap '' TERM; echo on; {FOREVER}"], ready="on")
        with pytest.raises(
            LoaderError, match=r"cannot end process .* because process \d+ ignores SIGTERM; SIGKILL ended it"
        ):
            agent.close()
        assert agent.pids == []
        agent.close()

    def test_teardown_sends_a_lost_signal_again(self, bpf, monkeypatch, tmp_path):
        monkeypatch.setattr("pytest_bpfmaps.loaders.end_request._IDLE", 0.3)
        agent = bpf.start(["bash", "-c", LOSES_TWO], ready="on", cwd=tmp_path)
        agent.close()
        assert (agent.returncode, agent.stdout) == (-signal.SIGTERM, "on\nlost\nlost\n")

    def test_wait_sends_a_lost_signal_again_to_bpftrace_alone(self, bpf, monkeypatch, tmp_path):
        monkeypatch.setattr("pytest_bpfmaps.loaders.end_request._IDLE", 0.3)
        named = shutil.copy("/bin/bash", tmp_path / "bpftrace")
        script = bpf.start([named, "-c", LOSES_TWO], ready="on", cwd=tmp_path)
        script.terminate()
        assert (script.wait(), script.stdout) == (-signal.SIGTERM, "on\nlost\nlost\n")
        agent = bpf.start(["bash", "-c", LOSES_TWO], ready="on", cwd=tmp_path)
        agent.terminate()
        with pytest.raises(LoaderError, match="still runs after SIGTERM"):
            agent.wait(1)
        assert agent.stdout == "on\nlost\n"
        agent.terminate()  # the remedy
        agent.terminate()

    def test_a_process_that_works_gets_no_second_signal(self, bpf, monkeypatch):
        monkeypatch.setattr("pytest_bpfmaps.loaders.end_request._IDLE", 0.1)
        agent = bpf.start([sys.executable, "-c", REMOVES], ready="on")
        agent.close()
        assert (agent.returncode, agent.stdout) == (0, "on\nremoved\n")

    def test_it_is_stopped(self, bpf):
        agent = bpf.start(["sh", "-c", "kill -STOP $$; echo on; exec sleep 60"])
        with pytest.raises(
            CaptureTimeoutError, match=r"-> a signal or a debugger has stopped it: agent\.send_"
        ):
            agent.wait_for_output("on", timeout=0.5)
        agent.terminate()
        with pytest.raises(LoaderError, match=rf"still runs, because process {agent.pid} is stopped\n"):
            agent.wait(0.1)
        agent.send_signal(signal.SIGCONT)  # the remedy
        assert agent.wait() == -signal.SIGTERM

    def test_wait_needs_terminate(self, bpf):
        agent = bpf.start(["sleep", "60"])
        with pytest.raises(LoaderError, match=r"(?s)still runs.*-> call terminate\(\) first"):
            agent.wait(0.1)

    def test_into_the_background(self, bpf, tmp_path):
        daemon = (
            "import os, time\n"
            "if os.fork(): os._exit(0)\n"
            "os.setsid()\n"
            "if os.fork(): os._exit(0)\n"
            f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
            f"os.rename({str(tmp_path / 'pid')!r}, {str(tmp_path / 'pid2')!r})\n"
            "time.sleep(60)\n"
        )
        agent = bpf.start([sys.executable, "-c", daemon], ready=tmp_path / "pid2")
        bpf.wait_until(lambda: agent.pids == [int((tmp_path / "pid2").read_text())], timeout=10)
        with pytest.raises(LoaderError, match="still runs"):
            agent.wait(0.1)
        agent.terminate()
        assert agent.wait() == 0
        assert agent.pids == []

    def test_into_the_background_without_its_environment(self, bpf, tmp_path):
        """As by su(1), or by a daemon that writes its title over its environment. Nobody looks meanwhile."""
        daemon = (
            "import os\n"
            "if os.fork(): os._exit(0)\n"
            "os.setsid()\n"
            "if os.fork(): os._exit(0)\n"
            "os.execve('/bin/sh', ['sh', '-c', f'echo $$ > {0}; mv {0} {0}2; exec sleep 60'], {})\n"
        ).replace("{0}", str(tmp_path / "pid"))
        agent = bpf.start([sys.executable, "-c", daemon])
        bpf.wait_until((tmp_path / "pid2").exists, timeout=10)
        child = int((tmp_path / "pid2").read_text())
        bpf.wait_until(lambda: agent.pids == [child], timeout=10)  # mv has ended
        agent.terminate()
        assert agent.wait() == 0
        assert agent.pids == []

    def test_children_go_with_it(self, bpf):
        agent = bpf.start(
            ["sh", "-c", "sleep 60 & echo $!; wait"], ready=lambda agent: agent.stdout.endswith("\n")
        )
        child = int(agent.stdout)
        assert agent.pids == [agent.pid, child]
        agent.close()
        assert not is_running(child)

    def test_all_go_when_the_run_is_killed(self, bpf, tmp_path):
        code = f"""
            import os, signal, time
            from pathlib import Path
            from pytest_bpfmaps.harness import Bpf

            agent = Bpf(None).start(["sh", "-c", "env -i setsid sleep 61 & sleep 62"])
            while len(agent.pids) < 3:
                time.sleep(0.01)
            Path({str(tmp_path / "pids")!r}).write_text(" ".join(map(str, agent.pids)))
            os.kill(os.getpid(), signal.SIGKILL)
        """
        lines = "\n".join(line.removeprefix(" " * 12) for line in code.splitlines())
        done = subprocess.run([sys.executable, "-c", lines], check=False)
        assert done.returncode == -signal.SIGKILL
        pids = (tmp_path / "pids").read_text().split()
        assert len(pids) == 3
        bpf.wait_until(lambda: not any(map(is_running, pids)), timeout=10)


@pytest.mark.bpf_requires(config="CONFIG_MEMCG")
def test_the_oom_killer(bpf, bpf_cgroup):
    controllers = (bpf_cgroup.path.parent / "cgroup.controllers").read_text().split()
    if "memory" not in controllers:
        pytest.skip("this kernel has the memory controller in cgroup v1, where the test has no group")
    (bpf_cgroup.path.parent / "cgroup.subtree_control").write_text("+memory")
    (bpf_cgroup.path / "memory.max").write_text(str(20 << 20))
    with pytest.raises(
        LoaderError, match="it was killed by SIGKILL: the kernel's OOM killer ended it\n  -> give the machine"
    ):
        bpf.start([sys.executable, "-c", "x = bytearray(200 << 20)"], cgroup=bpf_cgroup, ready="never")
