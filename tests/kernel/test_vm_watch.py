"""Tests --bpf-watch with guests: each run has one that waited, and sees the files as they are."""

import os
import re
import signal
import sys
import time
from pathlib import Path

from person import Person
from processes import is_running

from pytest_bpfmaps import paths
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

CACHE = paths.cache_dir()  # read before pytester changes HOME

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int answer(struct xdp_md *ctx) { return %s; }
char LICENSE[] SEC("license") = "GPL";
"""
TEST = """
import os
from pathlib import Path

def test_answer(bpf):
    assert bpf.load("answer.bpf.c").programs.answer.run(bytes(64)).retval == %s

def test_other(bpf):
    assert Path("note.txt").read_text() == "a note"
    assert not os.path.exists("/tmp/of-an-earlier-run")
    Path("/tmp/of-an-earlier-run").touch()
    if os.path.exists("panic"):
        Path("/proc/sysrq-trigger").write_text("c")

def test_third(bpf):
    pass
"""
WAITS = r"bpfmaps: waits for changes: Enter runs all tests, q ends\r\n"


def waiting(leader, count=1):
    """Returns the processes of the person's session that keep `count` guests ready, once they run."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                of_session = os.getsid(int(path.parent.name)) == leader
                words = path.read_bytes()
                task = path.parent / "task" / path.parent.name
                children = (task / "children").read_text().split()
            except OSError:
                continue
            if of_session and b"pytest_bpfmaps.vm.gateway.prepared" in words:
                found[int(path.parent.name)] = children
        if len(found) == count and all(found.values()):
            return found
        time.sleep(0.2)
    raise AssertionError("no guest waits")


def test_each_run_has_a_guest_that_waited(pytester, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makeini("[pytest]")
    Path("answer.bpf.c").write_text(SOURCE % "XDP_PASS")
    Path("test_answer.py").write_text(TEST % 2)
    Path("note.txt").write_text("a note")
    person = Person(
        [sys.executable, "-m", "pytest", "--bpf-watch", "-v", "--bpf-kernel=6.1", "--bpf-vm-timeout=120"]
    )

    def run(*outcomes):
        screen = person.sees(WAITS)
        assert re.findall(r"::(\w+\[6.1\] [A-Z]+) ", screen) == list(outcomes), screen

    try:
        run("test_answer[6.1] PASSED", "test_other[6.1] PASSED", "test_third[6.1] PASSED")
        first = waiting(person.process.pid)
        for pid in first:
            os.kill(pid, signal.SIGSTOP)  # a guest that can't serve is not waited for
        Path("answer.bpf.c").write_text(SOURCE % "XDP_DROP")
        run("test_answer[6.1] FAILED")  # it sees the new source
        second = waiting(person.process.pid)
        assert not set(first) & set(second)
        Path("test_answer.py").write_text(TEST % 1)
        # It sees the new test, and no earlier file.
        run("test_answer[6.1] PASSED", "test_other[6.1] PASSED", "test_third[6.1] PASSED")
        waiting(person.process.pid)
        Path("panic").touch()
        person.type("\n")
        screen = person.sees(WAITS)
        assert "Kernel panic" in screen
        assert "test_third[6.1] PASSED" in screen  # a guest that did not wait runs it
        last = waiting(person.process.pid)
        assert person.quits() == 1
        left = [pid for pid, guests in last.items() for pid in (pid, *guests) if is_running(pid)]
        assert left == []
    finally:
        person.end()


ONLY = """
import pytest

@pytest.mark.bpf_kernels("6.1")
def test_only(bpf):
    assert bpf.load("only.bpf.c").programs.answer.run(bytes(64)).retval == 2

def test_all(bpf):
    assert bpf.load("answer.bpf.c").programs.answer.run(bytes(64)).retval == 2
"""


def test_several_kernels(pytester, monkeypatch):
    """Each run is for the kernels of its tests, and guests for other kernels go on waiting."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makeini("[pytest]")
    others = [name for name in Catalogue().names() if name != "6.1"]
    kernels = ["host", "6.1", *others[-1:]]  # the newest, where there is one
    for name in ("answer", "only"):
        Path(f"{name}.bpf.c").write_text(SOURCE % "XDP_PASS")
    Path("test_kernels.py").write_text(ONLY)
    option = f"--bpf-kernel={','.join(kernels)}"
    command = [sys.executable, "-m", "pytest", "--bpf-watch", "-v", option, "--bpf-vm-timeout=120"]
    person = Person(command)

    def run(*outcomes):
        screen = person.sees(WAITS)
        assert sorted(re.findall(r"::(\w+\[\S+\] [A-Z]+) ", screen)) == sorted(outcomes), screen

    try:
        run("test_only[6.1] PASSED", *(f"test_all[{kernel}] PASSED" for kernel in kernels))
        first = waiting(person.process.pid, len(kernels) - 1)
        Path("only.bpf.c").write_text(SOURCE % "XDP_DROP")
        run("test_only[6.1] FAILED")
        second = waiting(person.process.pid, len(kernels) - 1)
        assert len(set(first) - set(second)) == 1
        Path("answer.bpf.c").write_text(SOURCE % "XDP_DROP")
        run(*(f"test_all[{kernel}] FAILED" for kernel in kernels))
        assert person.quits() == 1
    finally:
        person.end()
