"""Tests processes that wait until a test lets them run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import state

from pytest_bpfmaps import ClosedError, TriggerError
from pytest_bpfmaps.triggers.process import PausedProcess


def test_it_exists_before_it_runs(bpf_process):
    process = bpf_process(["sh", "-c", "echo $$; cat"], input=b"hello")
    assert state(process.pid) in ("R", "S")
    assert os.readlink(f"/proc/{process.pid}/exe") == os.readlink("/proc/self/exe")
    assert process.output == b""
    assert process.run() == 0
    assert process.output == f"{process.pid}\nhello".encode()


def test_exit_status_and_signals(bpf_process):
    assert bpf_process(["sh", "-c", "exit 3"]).run() == 3
    sleeper = bpf_process(["sleep", "60"])
    sleeper.resume()
    assert Path(f"/proc/{sleeper.pid}/comm").read_text() == "sleep\n"
    sleeper.send_signal(signal.SIGTERM)
    assert sleeper.wait() == sleeper.returncode == -signal.SIGTERM
    sleeper.send_signal(signal.SIGTERM)


def test_signals_have_their_defaults_again(bpf_process):
    process = bpf_process(["sh", "-c", "kill -PIPE $$"])
    assert process.run() == -signal.SIGPIPE


def test_environment_and_folder(bpf_process, tmp_path):
    process = bpf_process(["sh", "-c", "echo $WORD; pwd"], env={"WORD": "yes"}, cwd=tmp_path)
    process.run()
    assert process.output.decode().split() == ["yes", str(tmp_path)]


def test_what_can_not_run(bpf_process, tmp_path):
    with pytest.raises(TriggerError, match="cannot start no-such-program: there is no such program"):
        bpf_process(["no-such-program"])
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    with pytest.raises(TriggerError, match=r"cannot start process \d+ .*: Exec format error") as caught:
        bpf_process([broken]).resume()
    assert caught.value.errno == 8
    with pytest.raises(TriggerError, match="No such file or directory"):
        bpf_process(["true"], cwd=tmp_path / "nowhere").resume()


def test_misuse_is_an_error(bpf_process):
    process = bpf_process(["true"])
    with pytest.raises(TriggerError, match=r"has not ended within 0\.001 s"):
        process.wait(timeout=0.001)
    process.run()
    with pytest.raises(ClosedError, match="resumed already"):
        process.resume()


def test_teardown_reaps_whatever_state_it_is_in():
    descriptors = set(os.listdir("/proc/self/fd"))
    paused, running, ended = (PausedProcess(["sleep", "60"]) for _ in range(3))
    running.resume()
    ended.send_signal(signal.SIGKILL)
    for process in (paused, running, ended):
        process.close()
        process.close()
        assert process.returncode == -signal.SIGKILL
        assert state(process.pid) == ""
    assert set(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("resume", [False, True])
def test_it_dies_with_a_killed_run(resume):
    code = (
        "import sys\n"
        "from pytest_bpfmaps.triggers.process import PausedProcess\n"
        "process = PausedProcess(['sleep', '60'])\n"
        f"{'process.resume()' if resume else ''}\n"
        "print(process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as killed:
        pid = int(killed.stdout.readline())
        pidfd = os.pidfd_open(pid)
        assert state(pid) in ("R", "S")
        killed.kill()
    try:
        import select

        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        assert ended.poll(10_000)
    finally:
        os.close(pidfd)
    assert state(pid) in ("", "Z")
