"""Tests guests, as a person sees them: real kernels, one `pytest` command each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from caches import CACHE
from processes import is_running
from qemus import qemus_for, wait_until
from shown_blocks import shows

MARK = "BPFMAPS_TEST_OF_TRACES"  # in the environment of every process that one run of pytest starts

FIXTURES = """
    import os, pytest

    @pytest.fixture
    def bpf_kernel():
        return os.uname().release
"""

AT_HOME = """
    import os, socket, sys
    import pytest

    def test_says_where_it_runs(bpf_kernel):
        print("runs in", bpf_kernel)
        assert bpf_kernel == "nowhere"

    def test_cannot_write_to_the_hosts_files(bpf_kernel, tmp_path):
        with open("written.txt", "w") as file:
            file.write("x")
        (tmp_path / "temporary").write_text("y")
        with open("/etc/bpfmaps-was-here", "w") as file:
            file.write("z")

    @pytest.mark.bpf_kernels("6.*")
    def test_is_at_home(bpf_kernel):
        assert os.environ["FROM_THE_HOST"] == "yes"
        assert os.getcwd() == os.environ["HERE"]
        assert os.umask(0o22) == 0o22
        assert os.path.ismount("/sys/fs/bpf") and os.path.ismount("/sys/kernel/tracing")
        assert os.path.ismount("/sys/fs/cgroup")
        assert len(os.sched_getaffinity(0)) == 2
        assert sys.getfilesystemencoding() == "utf-8"
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=60).close()

    def test_plain():
        assert os.uname().release == os.environ["HOST_RELEASE"]
"""


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))


def test_tests_run_in_a_guest_as_they_would_on_the_host(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeconftest(FIXTURES)
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makepyfile(test_matrix=AT_HOME)
    monkeypatch.setenv("FROM_THE_HOST", "yes")
    monkeypatch.setenv("HERE", str(pytester.path))
    monkeypatch.setenv("HOST_RELEASE", os.uname().release)
    result = pytester.runpytest_subprocess(
        "--bpf-kernel=6.1", "-v", "-rA", "--junitxml=report.xml", "--durations=1"
    )
    result.assert_outcomes(failed=1, passed=3)
    result.stdout.re_match_lines(
        [
            r"bpfmaps: kernels 6\.1 \(6\.1\.0-\S+-amd64.*\)",
            r"test_matrix.py::test_says_where_it_runs\[6.1\] FAILED +\[.*%\]$",
        ]
    )
    result.stdout.re_match_lines([r"E  .*assert '6\.1\.0-\S+-amd64' == 'nowhere'", r"runs in 6\.1\.0-\S+"])
    result.stdout.fnmatch_lines_random(
        ["PASSED test_matrix.py::test_is_at_home[[]6.1]", "PASSED test_matrix.py::test_plain"]
    )
    assert not (pytester.path / "written.txt").exists()
    assert not Path("/etc/bpfmaps-was-here").exists()
    cases = {case.get("name"): case for case in ET.parse(pytester.path / "report.xml").iter("testcase")}
    assert set(cases) == {
        "test_says_where_it_runs[6.1]",
        "test_cannot_write_to_the_hosts_files[6.1]",
        "test_is_at_home[6.1]",
        "test_plain",
    }
    failure = cases["test_says_where_it_runs[6.1]"].find("failure")
    assert failure is not None
    assert "nowhere" in str(failure.get("message"))
    assert float(str(cases["test_is_at_home[6.1]"].get("time"))) > 0


def test_a_guest_that_dies_or_hangs_fails_its_test_and_the_others_still_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    pytester.makeconftest(FIXTURES)
    pytester.makepyfile(
        test_crash="""
        import time

        def test_before(bpf_kernel):
            assert bpf_kernel.startswith("6.1.0")

        def test_panics(bpf_kernel):
            with open("/proc/sysrq-trigger", "w") as file:
                file.write("c")

        def test_between(bpf_kernel):
            assert bpf_kernel.startswith("6.1.0")

        def test_hangs(bpf_kernel):
            time.sleep(10000)
        """
    )
    result = pytester.runpytest_subprocess(
        "--bpf-kernel=host,6.1", "-k", "6.1", "--bpf-vm-timeout=12", "-v", "--bpf-summary=summary.json"
    )
    result.assert_outcomes(failed=2, passed=2)
    files = json.loads((pytester.path / "summary.json").read_text())["files"]
    assert files == {"test_crash.py": {"6.1": {"failed": 2, "passed": 2}}}
    result.stdout.fnmatch_lines(
        [
            "*_ test_panics[[]6.1] _*",
            "VmLostError: guest died: kernel 6.1 (6.1.0-*",
            "*Console of kernel 6.1*",
            "*Kernel panic - not syncing: sysrq triggered crash*",
            "*_ test_hangs[[]6.1] _*",
            "VmTimeoutError: test hung in kernel 6.1: it ran for more than *",
        ]
    )
    shown = result.stdout.str()
    assert "Traceback" not in shown
    assert "node down" not in shown  # words of pytest-xdist
    assert "replacing crashed worker" not in shown
    source = (pytester.path / "test_crash.py").read_text().splitlines()
    for name in ("test_panics", "test_hangs"):
        line = source.index(f"def {name}(bpf_kernel):") + 1
        title = f"test_crash.py%3A%3A{name} [[]6.1]"
        result.stdout.fnmatch_lines([f"::error file=test_crash.py,line={line},title={title}::*"])
    assert qemus_for(pytester.path) == []


# When a test has begun, this starts a process that has pytest's pipes, too. So these do not close with
# pytest.
HOLDER = """
    import time

    def pytest_runtest_logstart(nodeid):
        if "PYTEST_XDIST_WORKER" in os.environ:
            return
        holder = os.fork()
        if holder == 0:
            time.sleep(3000)
            os._exit(0)
        with open("holder.new", "w") as file:
            file.write(str(holder))
        os.rename("holder.new", "holder")
"""


@pytest.mark.parametrize("victim", ["pytest", "gateway"])
def test_nothing_is_left_behind(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    pytester.makeconftest(FIXTURES + HOLDER)
    holder = pytester.path / "holder"
    pytester.makepyfile("import time\ndef test_long(bpf_kernel): time.sleep(1000)")
    monkeypatch.setenv("TMPDIR", str(pytester.mkdir("tmp")))
    monkeypatch.setenv(MARK, str(pytester.path))
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--bpf-kernel=6.1", "--max-worker-restart=0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(holder.exists)
        (qemu,) = qemus_for(pytester.path)
        gateway = int(_stat(qemu)[1])
        os.kill(run.pid if victim == "pytest" else gateway, signal.SIGKILL)
        wait_until(lambda: not qemus_for(pytester.path))
        wait_until(lambda: not is_running(gateway))
        assert run.wait(600) != 0
    finally:
        run.kill()
        run.wait()
        if holder.exists():
            os.kill(int(holder.read_text()), signal.SIGKILL)
    wait_until(lambda: not _marked(str(pytester.path)))
    assert list((pytester.path / "tmp").iterdir()) == []


# It runs last, because the interrupted run says what earlier hooks have noted.
BEGAN = """
    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logstart():
        open("began", "w").close()
"""


def test_ctrl_c_ends_the_guest_and_says_what_it_was_doing(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(FIXTURES + BEGAN)
    pytester.makepyfile(test_it="import time\ndef test_long(bpf_kernel): time.sleep(1000)")
    run = subprocess.Popen(
        # A shell's background processes ignore SIGINT, and so would their children.
        ["env", "--default-signal=INT", sys.executable, "-m", "pytest", "--bpf-kernel=6.1"],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    wait_until((pytester.path / "began").exists)
    os.killpg(run.pid, signal.SIGINT)
    output, _ = run.communicate(timeout=600)
    assert "KeyboardInterrupt" in output
    shows("virtual-machines.md", "interrupted", output)
    assert run.returncode == pytest.ExitCode.INTERRUPTED
    assert qemus_for(pytester.path) == []


def test_a_kernel_that_does_not_boot_is_an_error_and_the_host_runs_on(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(FIXTURES)
    pytester.makepyfile("def test_x(bpf_kernel): pass")
    result = pytester.runpytest_subprocess("--bpf-kernel=host,6.1", "--bpf-vm-timeout=0.001")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*ERROR collecting kernel 6.1*",
            "VmError: kernel did not boot: 6.1 (6.1.0-*) with QEMU *: the guest was not ready after 0.* s",
            "*--bpf-vm-timeout*",
            "*1 passed, 1 error*",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_doctor_names_an_option_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernels").mkdir()
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path))
    for name in ("kernels/6.1", "kvm.json", "warm"):
        if (CACHE / name).exists():
            (tmp_path / name).symlink_to(CACHE / name)
    for seconds, row in (
        ("0.001", "*6.1 boots * the guest was not ready after 0.*"),
        ("60", "*ok  6.1 boots *"),
    ):
        command = [Path(sys.executable).with_name("bpfmaps"), "doctor", "--vm", "--timeout", seconds]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
        pytest.LineMatcher(said.splitlines()).fnmatch_lines([row])
        has_remedy = "-> `bpfmaps doctor --vm --timeout SECONDS` gives it more time; " in said
        assert has_remedy == (seconds == "0.001")
    shows("doctor.md", "6.1 boots", said)


def test_a_worker_that_ends_by_itself_is_not_started_again_and_again(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(FIXTURES + "    if os.uname().release.startswith('6.1.0-'): os._exit(3)\n")
    pytester.makepyfile("def test_x(bpf_kernel): pass")
    result = pytester.runpytest_subprocess("--bpf-kernel=host,6.1")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "VmLostError: guest died: *: the worker ended with status 3",
            "bpfmaps: the worker ended with status 3",
        ]
    )


def test_what_ended_the_worker_is_said(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(FIXTURES)
    pytester.makepyfile(
        test_ends="""
        import ctypes

        def test_crashes(bpf_kernel):
            ctypes.string_at(0)

        def test_has_no_memory_left(bpf_kernel):
            with open("/proc/sysrq-trigger", "w") as trigger:
                trigger.write("f")  # starts the out-of-memory killer
            while True: pass

        def test_last(bpf_kernel):
            pass
        """
    )
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "VmLostError: guest died: *: the worker ended by signal SIGSEGV",
            "Fatal Python error: Segmentation fault",
            "*test_ends.py*, line 4 in test_crashes",
            "VmLostError: guest died: *: it had no memory left; the worker ended by signal SIGKILL",
            "*-> --bpf-vm-memory gives guests more",
        ]
    )


def test_a_kernel_without_modules_says_that_it_cannot_mount(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    image = tmp_path / "vmlinuz"
    (found,) = (CACHE / "kernels" / "6.1").rglob("vmlinuz*")
    image.write_bytes(found.read_bytes())
    pytester.makeconftest(FIXTURES)
    pytester.makepyfile("def test_x(bpf_kernel): pass")
    result = pytester.runpytest_subprocess(f"--bpf-kernel={image}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["VmError: kernel did not boot: 6.1.0-*", "*use a kernel with 9p and overlay*"]
    )


def _stat(pid: int) -> list[str]:
    """Returns state and parent of a process, proc_pid_stat(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return ["Z", "0"]


def _marked(value: str) -> list[int]:
    """Returns the processes that were started with `MARK` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={value}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:  # the process has ended, or is another user's
            continue
    return found
