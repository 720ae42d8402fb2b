"""Tests kernels that really break under a test: the test fails and says how, and all other tests run."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from caches import CACHE
from qemus import qemus_for
from shown_blocks import shows

from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.machine.kvm import judge

KERNEL = os.environ.get("BPFMAPS_BREAKS_ON", "6.1")

CONFTEST = """
    import contextlib, os, signal
    import pytest
    from qemus import qemus_for
    from pathlib import Path

    @pytest.fixture
    def bpf_kernel():
        return os.uname().release

    def pytest_runtest_logstart(nodeid):
        if "test_is_shot" in nodeid and "PYTEST_XDIST_WORKER" not in os.environ:
            for qemu in qemus_for(Path.cwd()):  # that of an earlier guest may not have ended yet
                with contextlib.suppress(ProcessLookupError):
                    os.kill(qemu, signal.SIGKILL)
"""
BREAKS = """
    import ctypes, os, signal, threading
    from broken_disk import _mount, warn

    def test_first(bpf_kernel):
        for name, seconds in {"watchdog_thresh": THIRD // 2, "hung_task_timeout_secs": THIRD}.items():
            with open(f"/proc/sys/kernel/{name}") as file:
                assert int(file.read()) == seconds

    def test_panics(bpf_kernel):
        with open("/proc/sysrq-trigger", "w") as file:
            file.write("c")

    def test_after_the_panic(bpf_kernel):
        pass

    def test_spins(bpf_kernel):
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
        while True:
            pass

    def test_after_the_spin(bpf_kernel):
        pass

    def test_is_stuck(bpf_kernel, tmp_path):
        os.system("modprobe fuse")
        server = os.open("/dev/fuse", os.O_RDWR)  # a file system whose server never answers
        _mount("none", tmp_path, "fuse", f"fd={server},rootmode=40000,user_id=0,group_id=0")
        os.stat(tmp_path / "file")

    def test_after_the_stuck_one(bpf_kernel):
        pass

    def test_warns(bpf_kernel, tmp_path):
        warn(tmp_path)

    def test_after_the_warning(bpf_kernel):
        pass

    def test_is_shot(bpf_kernel):
        threading.Event().wait()

    def test_last(bpf_kernel):
        pass
"""
LOOPS = """
    import threading
    from pathlib import Path
    import pytest

    CODE = '''
    #include <linux/bpf.h>
    #include <bpf/bpf_helpers.h>
    char LICENSE[] SEC("license") = "GPL";
    static long inner(__u32 i, void *context) { return 0; }
    static long outer(__u32 i, void *context) { bpf_loop(1 << 23, inner, 0, 0); return 0; }
    SEC("tc") int for_weeks(struct __sk_buff *skb) { bpf_loop(1 << 23, outer, 0, 0); return 0; }
    SEC("perf_event") int with_interrupts_off(void *context) { bpf_loop(1 << 23, outer, 0, 0); return 0; }
    '''
    pytestmark = pytest.mark.bpf_requires(helper="loop")

    @pytest.fixture
    def one_cpu():
        Path("/sys/devices/system/cpu/cpu1/online").write_text("0")
        assert Path("/sys/devices/system/cpu/online").read_text() == "0\\n"

    def test_for_weeks(bpf, one_cpu):
        bpf.load(code=CODE).programs.for_weeks.run(bytes(64))

    def test_after_the_loop(bpf):
        pass

    def test_with_interrupts_off(bpf, one_cpu):
        with bpf.load(code=CODE).programs.with_interrupts_off.attach(perf_event="cpu_clock", frequency=10):
            threading.Event().wait()

    def test_last(bpf):
        pass
"""
BLOCKED = """
    import fcntl, os, subprocess
    FIFREEZE = 0xC0045877

    def test_is_blocked(bpf_kernel, tmp_path):
        image, files = tmp_path / "image", tmp_path / "files"
        files.mkdir()
        for command in (
            ["mke2fs", "-q", "-t", "ext4", image, "8M"],
            ["modprobe", "loop"],
            ["modprobe", "ext4"],
            ["mount", "-o", "loop", image, files],
        ):
            subprocess.run(command, check=True)
        fcntl.ioctl(os.open(files, os.O_RDONLY), FIFREEZE, 0)
        (files / "file").touch()

    def test_last(bpf_kernel):
        with open("/proc/sys/kernel/hung_task_timeout_secs") as file:
            assert int(file.read()) == 25  # a third of the seconds that the guest's tests have
"""


LOST = f"VmLostError: guest died: kernel {KERNEL} (*): "
HUNG = f"VmTimeoutError: test hung in kernel {KERNEL}*"
CONSOLE, STACKS = f"*- Console of kernel {KERNEL} -*", f"*- Stacks in kernel {KERNEL} -*"
REPORTS = {
    "panics": [LOST + "kernel panic: sysrq triggered crash", CONSOLE, "*write_sysrq_trigger+0x*"],
    "spins": [HUNG, STACKS, "*line * in test_spins", "*the worker, *), running", "*NMI backtrace for cpu *"],
    "is_stuck": [HUNG, STACKS, "*line * in test_is_stuck", "*the worker, *), uninterruptible", "*fuse_*"],
    "warns": ["kernel: WARNING at fs/buffer.c:* in mark_buffer_dirty()", "*minix_new_inode+0x*"],
    "is_shot": [LOST + "QEMU ended by signal SIGKILL"],
}


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    for name in ("broken_disk.py", "qemus.py"):
        shutil.copy(Path(__file__).with_name(name), pytester.path)
    pytester.makeconftest(CONFTEST)
    return pytester


def seconds(of_the_guest: float) -> str:
    """Returns the option that gives tests that many seconds, also where guests are emulated."""
    verdict = judge(Catalogue(CACHE / "kernels").get(KERNEL))
    return f"--bpf-vm-timeout={of_the_guest / verdict.stretch(1.0)}"


@pytest.mark.parametrize(
    ("way", "timeout", "broken"),
    [
        ("warm", 24, ["panics", "spins", "is_stuck", "warns", "is_shot"]),
        # A boot may take longer than 24 s. It costs ten times as much as a restore. So this way has one break
        # for each part that finds breaks: process 1, the kernel's log, the gateway. No test follows the last
        # one. test_vm_options.py has the panic.
        ("virtme-ng", 120, ["is_stuck", "warns", "is_shot"]),
    ],
)
def test_each_break_is_its_tests_and_everything_after_it_runs(
    suite: pytest.Pytester, way: str, timeout: int, broken: list[str]
) -> None:
    suite.makepyfile(test_it=BREAKS.replace("THIRD", str(max(timeout // 3, 20))))
    after = ["after_the_panic", "after_the_spin", "after_the_stuck_one", "after_the_warning"]
    passing = ["first", *after, *(["last"] if way == "warm" else [])]
    selected = ["-k", " or ".join([*broken, *passing])]
    result = suite.runpytest_subprocess(
        f"--bpf-kernel={KERNEL}", f"--bpf-vm={way}", seconds(timeout), "-v", *selected
    )
    result.assert_outcomes(passed=len(passing), failed=len(broken))
    for name in passing:
        result.stdout.fnmatch_lines([f"test_it.py::test_{name}[[]{KERNEL}] PASSED*"])
    ran = re.findall(r"^test_it\.py::test_(\w+)\S* (?:PASSED|FAILED)", result.stdout.str(), re.M)
    assert len(ran) == len(passing) + len(broken)
    assert ran == [name for name in re.findall(r"def test_(\w+)", BREAKS) if name in ran]
    for name in broken:
        result.stdout.fnmatch_lines([f"*_ test_{name}[[]{KERNEL}] _*", *REPORTS[name]])
    assert qemus_for(suite.path) == []


def test_a_task_that_is_blocked_is_found_by_the_kernel(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_it=BLOCKED)
    result = suite.runpytest_subprocess(f"--bpf-kernel={KERNEL}", seconds(75))
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"*_ test_is_blocked[[]{KERNEL}] _*",
            "VmLostError: *: kernel panic: hung_task: blocked tasks",
            CONSOLE,
            "*INFO: task python*:* blocked for more than * seconds.",
            "*percpu_rwsem_wait+0x*",
        ]
    )


def test_a_program_that_loops_in_the_kernel_is_found_even_where_interrupts_are_off(
    suite: pytest.Pytester,
) -> None:
    suite.makepyfile(test_it=LOOPS)
    # The guest has one CPU then, so nothing else can run, not even process 1. The kernel finds the first loop
    # after a third of the time. The rest is for what comes before.
    result = suite.runpytest_subprocess(f"--bpf-kernel={KERNEL}", seconds(36))
    if KERNEL == "5.10":  # in 5.10 no loop can run longer than its verification
        result.assert_outcomes(skipped=4)
        return
    result.assert_outcomes(passed=2, failed=2)
    weeks, off = result.stdout.str().split("_ test_with_interrupts_off[", 1)
    pytest.LineMatcher(weeks.splitlines()).re_match_lines(
        [
            rf"_+ test_for_weeks\[{KERNEL}\] _+",
            r"VmLostError: .*: kernel panic: (RCU Stall|softlockup: hung tasks)",
            rf"-+ Console of kernel {KERNEL} -+",
            r".*(INFO: rcu.* stall|BUG: soft lockup)",
            r".*_for_weeks\+0x",
        ]
    )
    if KERNEL == "6.1" and "kernel panic: RCU Stall" in weeks:
        shows("virtual-machines.md", "test_for_weeks", weeks)
    pytest.LineMatcher(off.splitlines()).fnmatch_lines(
        [
            "VmTimeoutError: test hung in kernel *",
            "*Uhhuh. NMI received for unknown reason *",
            "*_with_interrupts_off+0x*",
            f"*- Stacks in kernel {KERNEL} -*",
            "process 1 did not answer, so an NMI stopped the kernel: see the console",
        ]
    )
