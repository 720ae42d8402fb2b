"""Tests that what hangs in a guest is ended and named, and harms nothing else. Real guests, in one run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from caches import CACHE
from qemus import qemus_for

from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.machine.kvm import judge

LIMIT = 24  # seconds for each step

CONFTEST = """
    import os, signal, time
    from pathlib import Path
    import pytest
    from qemus import qemus_for

    IN_GUEST = os.uname().release.startswith("6.1.0-")

    @pytest.fixture
    def bpf_kernel():
        return os.uname().release

    class Outer:
        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_protocol(self, item):
            result = yield
            if item.name.startswith("test_before_a_hang"):
                time.sleep(100000)
            return result

    def pytest_collection_finish(session):
        if IN_GUEST:
            session.config.pluginmanager.register(Outer())

    def pytest_sessionfinish(session):
        if IN_GUEST and "test_faults.py" in str(session.config.args):
            time.sleep(100000)

    @pytest.hookimpl(trylast=True)
    def pytest_configure(config):
        if not IN_GUEST:
            config.pluginmanager.register(Stops(config))

    class Stops:
        def __init__(self, config):
            self.config = config

        def pytest_runtest_logstart(self, nodeid):
            if "stopped" in nodeid:
                nodes = self.config.pluginmanager.getplugin("dsession")._active_nodes
                number = "fresh2" if "test_is_stopped" in nodeid else "fresh4"
                (node,) = (node for node in nodes if number in node.gateway.spec.id)
                gateway = node.gateway._io.popen.pid
                if number == "fresh4":
                    os.kill(gateway, signal.SIGSTOP)
                    return
                for qemu in qemus_for(Path.cwd()):
                    stat = Path(f"/proc/{qemu}/stat").read_text().rpartition(")")[2].split()
                    if int(stat[1]) == gateway:
                        os.kill(qemu, signal.SIGSTOP)
"""
FAULTS = """
    import ctypes, os, time
    import pytest

    def test_writes_to_the_control_port(bpf_kernel):
        os.write(int(os.environ["BPFMAPS_CONTROL_FD"]), b"garbage\\n")

    def test_forks(bpf_kernel):
        global child
        child = os.fork()  # the child comes back out of the test

    def test_sees_the_child_end(bpf_kernel):
        os.waitpid(child, 0)  # else process 1 would reap it

    def test_changes_its_root(bpf_kernel, tmp_path):
        os.chroot(tmp_path)

    @pytest.fixture
    def another_root(tmp_path):
        os.chroot(tmp_path)

    def test_has_a_fixture_that_does(bpf_kernel, another_root):
        pass

    def test_finds_its_files(bpf_kernel):
        assert os.path.exists("test_faults.py")

    def test_reboots(bpf_kernel):
        ctypes.CDLL(None).reboot(0x1234567)
        time.sleep(1000)

    def test_switches_off(bpf_kernel):
        ctypes.CDLL(None).reboot(0x4321FEDC)
        time.sleep(1000)

    def test_before_a_hang(bpf_kernel):
        pass

    def test_last(bpf_kernel):
        pass
"""
HANGS_AT_IMPORT = """
    import os, time
    import pytest

    if os.uname().release.startswith("6.1.0-"):
        time.sleep(100000)

    @pytest.mark.bpf_fresh_kernel
    def test_x(bpf_kernel):
        pass
"""
IS_STOPPED = """
    import threading
    import pytest

    @pytest.mark.bpf_fresh_kernel
    def test_is_stopped(bpf_kernel):
        threading.Event().wait()
"""
WAITS_FOR_A_FORK = """
    import os, time
    import pytest

    def hangs():
        time.sleep(100000)

    @pytest.mark.bpf_fresh_kernel
    def test_waits_for_a_fork(bpf_kernel):
        child = os.fork()
        if child == 0:
            hangs()
        os.waitpid(child, 0)
"""
GATEWAY_IS_STOPPED = """
    import threading
    import pytest

    @pytest.mark.bpf_fresh_kernel
    def test_gateway_is_stopped(bpf_kernel):
        threading.Event().wait()
"""
DIED = "VmLostError: guest died: kernel 6.1 (6.1.0-*): something in the guest"
REPORTS = [
    [
        "*_ ERROR at teardown of test_writes_to_the_control_port[[]6.1] _*",
        "a line came on the port of this harness, and the harness did not send it: 'garbage'",
    ],
    [
        "*_ ERROR at teardown of test_forks[[]6.1] _*",
        "a process that this test forked came back out of it, as a second pytest, and was ended",
    ],
    ["*_ test_changes_its_root[[]6.1] _*", "this test left its process in another root folder (chroot)*"],
    [
        "*_ ERROR at teardown of test_has_a_fixture_that_does[[]6.1] _*",
        "this test left its process in another root folder (chroot)*",
    ],
    ["*_ test_reboots[[]6.1] _*", f"{DIED} restarted it, by reboot(2)"],
    ["*_ test_switches_off[[]6.1] _*", f"{DIED} switched it off, by reboot(2)"],
    [
        "*_ hang of kernel 6.1, after test_faults.py::test_before_a_hang[[]6.1] _*",
        f"VmTimeoutError: step between tests hung in kernel 6.1: it took more than {LIMIT} s; "
        "the last test was test_faults.py::test_before_a_hang[[]6.1]; the guest was ended",
        "*-> look at the stacks below; --bpf-vm-timeout gives it more time*",
        "*conftest.py*, line * in pytest_runtest_protocol",
    ],
    [
        f"VmTimeoutError: end of the session hung in kernel 6.1: it took more than {LIMIT} s; "
        "the last test was test_faults.py::test_last[[]6.1]; the guest was ended",
        "*conftest.py*, line * in pytest_sessionfinish",
        "*--- kernel stacks of processes",
    ],
    [
        f"VmTimeoutError: collection of test_import.py hung in kernel 6.1: it took more than {LIMIT} s; "
        "no test had begun; the guest was ended",
        "*test_import.py*, line 5 in <module>",
    ],
    [
        "*_ test_is_stopped[[]6.1] _*",
        f"VmTimeoutError: test hung in kernel 6.1: it ran for more than {LIMIT} s; QEMU, process *, "
        "is stopped by a signal or a debugger; the guest was ended",
    ],
    [
        "*_ test_gateway_is_stopped[[]6.1] _*",
        "VmLostError: guest died: kernel 6.1: the process that runs it, *, was stopped by a signal or a "
        "debugger for * s, and was ended",
        "*-> find out what stops it",
        "while it ran test_zz.py::test_gateway_is_stopped[[]6.1]",
    ],
    [
        "*_ test_waits_for_a_fork[[]6.1] _*",
        f"VmTimeoutError: test hung in kernel 6.1: it ran for more than {LIMIT} s; the guest was ended",
        "--- Python stacks of the worker",
        "*line * in test_waits_for_a_fork",
        "--- Python stacks of its fork *",
        "*line * in hangs",
    ],
]


def test_whatever_hangs_or_breaks_out_is_named_and_all_else_runs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    shutil.copy(Path(__file__).with_name("qemus.py"), pytester.path)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        test_faults=FAULTS,
        test_import=HANGS_AT_IMPORT,
        test_is_stopped=IS_STOPPED,
        test_z=WAITS_FOR_A_FORK,
        test_zz=GATEWAY_IS_STOPPED,
    )
    verdict = judge(Catalogue(CACHE / "kernels").get("6.1"))
    result = pytester.runpytest_subprocess(
        "--bpf-kernel=6.1", "--bpf-vm-jobs=4", f"--bpf-vm-timeout={LIMIT / verdict.stretch(1.0)}", "-v"
    )
    passed = ["writes_to_the_control_port", "forks", "sees_the_child_end", "has_a_fixture_that_does"]
    for name in [*passed, "finds_its_files", "before_a_hang", "last"]:
        result.stdout.fnmatch_lines([f"test_faults.py::test_{name}[[]6.1] PASSED*"])
    for lines in REPORTS:
        result.stdout.fnmatch_lines(lines)
    result.assert_outcomes(passed=7, failed=7, errors=5)
    assert "INTERNALERROR" not in result.stdout.str()
    assert qemus_for(pytester.path) == []
