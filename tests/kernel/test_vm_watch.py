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


def waiting(leader):
    """Returns the processes of the person's session that keep a guest ready, once it has started."""
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
        if found and all(found.values()):
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
        person.type("q")
        assert person.process.wait(60) == 1
        left = [pid for pid, guests in last.items() for pid in (pid, *guests) if is_running(pid)]
        assert left == []
    finally:
        person.end()
