"""Tests the log of bpf_printk: the test writes the lines of trace_pipe, and the folders of tracefs."""

import errno
import os
import re
import subprocess
import sys
import threading

import pytest

from pytest_bpfmaps import CaptureTimeoutError, UnsupportedError
from pytest_bpfmaps.events import printk
from pytest_bpfmaps.events.printk import Printk, PrintkLog
from pytest_bpfmaps.kernel import tracefs


class Pipe:
    """Writes lines as the kernel writes them into trace_pipe."""

    def __init__(self, folder):
        self.folder = folder
        self.read_end, self._end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def write(self, text):
        os.write(self._end, text.encode())

    def say(self, *texts):
        for number, text in enumerate(texts):
            self.write(f"          python-7     [00{number}] d..31   12.5: bpf_trace_printk: {text}\n")

    def close(self):
        os.close(self._end)


@pytest.fixture
def pipe(tmp_path, monkeypatch):
    folder = tmp_path / "instance"
    folder.mkdir()
    made = Pipe(folder)
    monkeypatch.setattr(printk, "_make_instance", lambda: (folder, made.read_end))
    yield made
    made.close()


@pytest.fixture
def log(pipe):
    made = PrintkLog()
    yield made
    made.close()


def test_lines_come_whole(pipe, log):
    pipe.write("  python-7 [000] d..31 12.5: bpf_trace_printk: hel")
    log.drain()
    assert log.lines == []
    pipe.write("lo\n  python-7 [000] d..31 12.5: bpf_trace_printk: two\nlines\nand a")
    log.drain()
    assert log.lines == ["hello", "two\nlines"]
    pipe.say("b")
    log.drain()
    assert log.lines == ["hello", "two\nlines"], "what is no line of the program was not cut off"


def test_all_that_is_there_is_read(pipe, log):
    text = "x" * 900
    for _ in range(60):  # a pipe holds 64 KiB
        pipe.say(text)
    log.drain()
    assert log.lines == [text] * 60


def test_with_formats_only_their_lines_count(pipe, log):
    pipe.say("before 1")
    log.drain()
    log.add_formats(["size %d", "100%%"])
    pipe.say("size 7", "sizes 7", "100%", "size x")
    log.add_formats(["name %s\n"])
    pipe.say("name 7", "100", "more: name 7")
    log.drain()
    assert log.lines == ["before 1", "size 7", "100%", "name 7"]


def test_a_closed_log_keeps_its_last_lines(pipe, log):
    pipe.say("last")
    log.close()
    assert not pipe.folder.exists()
    assert log.lines == ["last"]
    log.close()
    log.drain()
    assert log.lines == ["last"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipe.read_end)


def test_lines_of_a_capture(pipe, log):
    pipe.say("early")
    with Printk(log) as lines:
        assert lines == []
        pipe.say("one", "two")
        assert lines == ["one", "two"]
        assert not lines == ["one"]  # noqa: SIM201
        assert not lines == ("one", "two")  # noqa: SIM201
        assert lines == lines  # noqa: PLR0124
        assert (len(lines), lines[1], lines[:1], list(lines)) == (2, "two", ["one"], ["one", "two"])
        assert repr(lines) == "['one', 'two']"
        assert (lines[1].comm, lines[1].pid, lines[1].cpu, lines[1].timestamp) == ("python", 7, 1, 12.5)
        pipe.say("three")
    pipe.say("late")
    assert lines == ["one", "two", "three"]
    lines.close()
    assert lines == ["one", "two", "three"]
    assert lines.wait(3, timeout=0) == ["one", "two", "three"]
    assert {lines: 1}[lines] == 1


def test_what_was_expected(pipe, log):
    lines = Printk(log)
    pipe.say("size 1", "size 22", "done")
    assert lines.wait() == lines.wait(3) == ["size 1", "size 22", "done"]
    assert lines.expect("size") == ["size 1", "size 22"]
    assert lines.expect(re.compile(r"\d\d|^d")) == ["size 22", "done"]
    with pytest.raises(CaptureTimeoutError) as told:
        lines.expect("sizes", timeout=0)
    assert str(told.value).splitlines() == [
        "expected bpf_printk to print 'sizes': none of 3 lines did in 0 s",
        "  python-7: size 1",
        "  python-7: size 22",
        "  python-7: done",
    ]
    with pytest.raises(CaptureTimeoutError, match=r"to print '\^s\$': none of 3 lines"):
        lines.expect(re.compile("^s$"), timeout=0)


def test_too_few_lines(pipe, log):
    lines = Printk(log)
    with pytest.raises(CaptureTimeoutError) as told:
        lines.wait(timeout=0)
    assert str(told.value) == "waited 0 s for 1 line of bpf_printk: 0 came"
    pipe.say(*"abcdefghijkl")
    with pytest.raises(CaptureTimeoutError) as told:
        lines.wait(13, timeout=0)
    assert str(told.value).splitlines() == [
        "waited 0 s for 13 lines of bpf_printk: 12 came",
        *(f"  python-7: {letter}" for letter in "cdefghijkl"),
    ]


def test_a_line_that_comes_later(pipe, log):
    lines = Printk(log)
    thread = threading.Timer(0.05, pipe.say, ["later"])
    thread.start()
    try:
        assert lines.wait(timeout=60) == ["later"]
    finally:
        thread.join()


# the folders of tracefs


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A folder like that of tracefs. The kernel does not fill the folder of a new instance."""
    (tmp_path / "events").mkdir()
    (tmp_path / "instances").mkdir()
    monkeypatch.setattr(tracefs, "_PLACES", (tmp_path / "none", tmp_path))
    return tmp_path / "instances"


def test_an_instance_that_cannot_be_made_leaves_nothing(folders):
    with pytest.raises(UnsupportedError) as refused:
        PrintkLog()
    assert refused.value.errno == errno.ENOENT
    name = rf"{re.escape(str(folders))}/bpfmaps-{os.getpid()}-\d+"
    assert re.match(f"cannot capture bpf_printk in {name}: ENOENT: No such file", str(refused.value))
    assert list(folders.iterdir()) == []


def test_instances_of_processes_that_have_ended_are_removed(folders):
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    names = [f"bpfmaps-{child.pid}-0", f"bpfmaps-{os.getpid()}-none", f"other-{child.pid}-0"]
    for name in names:
        (folders / name).mkdir()
    with pytest.raises(UnsupportedError):
        PrintkLog()
    assert sorted(path.name for path in folders.iterdir()) == sorted(names[1:])


def test_one_that_is_in_use_is_left(folders):
    """The kernel removes no instance that has a reader, as no folder that has a file is removed."""
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    used = folders / f"bpfmaps-{child.pid}-0"
    used.mkdir()
    (used / "file").touch()
    with pytest.raises(UnsupportedError, match="No such file"):
        PrintkLog()
    assert used.exists()


def test_without_tracefs(monkeypatch, tmp_path):
    monkeypatch.setattr(tracefs, "_PLACES", (tmp_path,))
    with pytest.raises(UnsupportedError, match=r"cannot capture bpf_printk: .*tracefs(.|\n)*--bpf-kernel="):
        PrintkLog()
