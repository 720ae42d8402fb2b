"""Tests what counts as progress of a boot, and how long a guest may be silent."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_bpfmaps.errors import VmBootError, VmError
from pytest_bpfmaps.vm.boot import boot_progress, warm
from pytest_bpfmaps.vm.boot.boot_progress import BootProgress, wait_for_word
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.child_process import waited_for_processor
from pytest_bpfmaps.vm.machine.qemu import Machine
from pytest_bpfmaps.vm.protocol.rpc import Lines

KERNEL = Kernel("6.1", "6.1.0-1", Path("image"), None, None, None, "nowhere", "x86_64")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot_progress, "STALL_SECONDS", 1.0)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Starts a process instead of QEMU. The argument is the Python program that it runs."""
    command = [sys.executable, "-u", "-c", request.param]
    with Machine(command, "x86_64", version="9.9", patience=0.0) as made:
        yield made


def wait(machine: Machine, seconds: float = 60.0) -> object:
    return wait_for_word(machine, KERNEL, Lines(machine.control.fileno()), "hello", seconds)


SILENT = "import time; print('first and last', flush=True); time.sleep(100)"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("machine", [SILENT], indirect=True)
def test_silence_is_a_stall_and_the_error_has_all_that_is_known(machine: Machine, tmp_path: Path) -> None:
    while not machine.console.size():
        time.sleep(0.01)
    with pytest.raises(VmBootError) as caught:
        wait(machine)
    error = caught.value
    assert error.on == "6.1 (6.1.0-1) with QEMU 9.9"
    assert str(error.why).startswith("it made no progress for ")
    assert error.details == "--- console\nfirst and last"
    kept = tmp_path / "cache" / "boots" / "6.1.sh"
    assert str(error.fix).endswith(
        f"QEMU's command line is in {kept}, and the console in 6.1.console beside it"
    )
    assert (kept.parent / "6.1.console").read_text() == "first and last\n"
    assert sys.executable in kept.read_text()


SLOW_WORD = """
import os, sys, time
fd = int(sys.argv[sys.argv.index("socket,id=bpfmaps-control,fd=" + next(
    a.rpartition("=")[2] for a in sys.argv if a.startswith("socket,id=bpfmaps-control")))].rpartition("=")[2])
for _ in range(8):
    print("a line", flush=True)
    time.sleep(0.4)
os.write(fd, b'{"hello": 1}\\n')
time.sleep(60)
"""


@pytest.mark.parametrize("machine", [SLOW_WORD], indirect=True)
def test_lines_are_progress_for_as_long_as_they_come(machine: Machine) -> None:
    assert wait(machine) == 1


@pytest.mark.parametrize("machine", [SLOW_WORD], indirect=True)
def test_a_word_that_came_too_late_is_too_late_whenever_one_looks(machine: Machine) -> None:
    """The result must not depend on how fast this process looked at it."""
    assert select.select([machine.control], [], [], 60)[0]
    with pytest.raises(VmError, match="the guest was not ready after 1 s"):
        wait(machine, 1.0)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("machine", ["while True: print('again')"], indirect=True)
def test_lines_without_end_are_progress_and_have_an_end(machine: Machine) -> None:
    """They take longer than a guest may be silent."""
    while not machine.console.size():
        time.sleep(0.01)
    with pytest.raises(VmError, match="the guest was not ready after 2 s") as caught:
        wait(machine, 2.0)
    assert not isinstance(caught.value, VmBootError)
    assert str(caught.value.fix).startswith("--bpf-vm-timeout gives it more time; ")


BUSY = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n"
WORKS = SLOW_WORD.replace("for _ in range(8)", f"import time\n{BUSY}while time.process_time() < 0.6").replace(
    "    time.sleep(0.4)\n", ""
)


@pytest.mark.parametrize("machine", [WORKS], indirect=True)
def test_waits_for_a_processor_are_not_the_guests(machine: Machine) -> None:
    """It needs 0.6 s of the processor that it shares with six other processes."""
    others = [subprocess.Popen([sys.executable, "-c", f"{BUSY}while True: pass"]) for _ in range(6)]
    try:
        assert wait(machine, 2.0) == 1
    finally:
        for process in others:
            process.kill()
            process.wait()


@pytest.mark.parametrize("machine", ["while True: print('again')"], indirect=True)
def test_the_end_of_making_a_state_depends_on_the_machine_and_has_another_remedy(
    machine: Machine,
) -> None:
    """--bpf-vm-timeout limits the start, and not the work before it."""
    machine.patience = 0.1
    with pytest.raises(VmError, match=r"the guest was not ready after 1\.5 s") as caught:
        warm._wait_until_ready(machine, KERNEL)
    assert str(caught.value.fix).startswith(
        "`pytest --bpf-vm=virtme-ng --bpf-vm-timeout=SECONDS` boots without a state; "
    )


@pytest.mark.parametrize("machine", ["import sys; sys.exit('what is -chardev')"], indirect=True)
def test_the_end_of_qemu_is_said_with_its_last_word(machine: Machine) -> None:
    with pytest.raises(VmBootError) as caught:
        wait(machine)
    assert caught.value.why == (
        "QEMU ended with status 1 before the guest was ready (it said: what is -chardev)"
    )


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("machine", [SILENT], indirect=True)
def test_a_boot_that_was_slow_so_far_may_be_slow(machine: Machine) -> None:
    progress = BootProgress(machine, KERNEL)
    assert progress.limit == 1.0
    while progress.limit == 1.0:
        time.sleep(0.1)
        progress.note()
    assert 1.0 < progress.limit < 100.0
    machine.patience = 1000.0
    assert progress.limit == 1000.0


def test_time_without_a_processor_is_known() -> None:
    """Two processes want the same state: each waits while the other one runs."""
    cpu = min(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    both = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    try:
        end = time.monotonic() + 600
        while waited_for_processor(both[0].pid) < 0.3:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        for process in both:
            process.kill()
            process.wait()


def test_a_process_that_is_gone_did_not_wait() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert waited_for_processor(process.pid) == 0.0


PANIC = """
print('Initramfs unpacking')
print('Kernel panic - not syncing: No working init found.')
print('reboot: machine restart')
"""


@pytest.mark.parametrize("machine", [PANIC], indirect=True)
def test_a_panic_is_said_in_the_one_line_that_runs_show(machine: Machine) -> None:
    """A run that continues in another way shows no console."""
    with pytest.raises(VmBootError) as caught:
        wait(machine)
    assert str(caught.value.why) == (
        "QEMU ended with status 0 before the guest was ready, and its console says "
        "'Kernel panic - not syncing: No working init found.'"
    )


WORDS = ("cpio: write error: No space left on device", "Out of memory: Killed process 1 (python)")


@pytest.mark.parametrize(
    "machine", [f"print('[  1.0] {word}'); print('cannot mount the host')" for word in WORDS], indirect=True
)
def test_too_little_memory_is_told_and_no_other_remedy(machine: Machine) -> None:
    machine.command += ["-m", "1G"]
    with pytest.raises(VmError, match=r"its memory, 1G, is too small \(the console: '\[  1\.0\] ") as caught:
        wait(machine)
    assert str(caught.value.fix).startswith("give it more memory: --bpf-vm-memory=2G; ")


@pytest.mark.parametrize("machine", ["print('Linux')"], indirect=True)
def test_a_small_memory_is_suspected(machine: Machine) -> None:
    machine.command += ["-m", "128M"]
    with pytest.raises(VmError, match="it has 128M of memory only") as caught:
        wait(machine)
    assert str(caught.value.fix).startswith("give it more memory: --bpf-vm-memory=1G; ")
