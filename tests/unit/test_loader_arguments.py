"""Tests that `bpf.start` and an agent's methods refuse what can't be meant, before anything is started."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps import LoaderError
from pytest_bpfmaps.harness import Bpf

ONE = [sys.executable, "-c", "pass"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("./agent -v", "it is no list of words\n  -> give a list: bpf.start(['./agent', '-v'])"),
        ({"a", "b"}, "it is no list of words"),
        (7, "cannot start 7: it is no list of words"),
        ([], "cannot start []: it has no words"),
        ([""], "cannot start ['']: its first word is empty"),
        (["a", 5], "cannot start ['a', 5]: its word 5 is no text\n  -> give a text: '5'"),
        (["a", None], "its word None is no text"),
        (["a", "b\0c"], r"its word 'b\x00c' has a NUL character"),
        (["no-such 5"], "there is no such command in PATH\n  -> give a list of words: ['no-such', '5']"),
    ],
)  # fmt: skip
def test_commands(command, message):
    with pytest.raises(LoaderError, match=re.escape(message)):
        Bpf(None).start(command)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": {"A": 1}}, "'A': 1 is no pair of texts\n  -> give texts: {'A': '1'}"),
        ({"env": ["A=1"]}, "cannot start with env=: ['A=1'] is no mapping"),
        ({"env": {"A=B": "x"}}, "'A=B': 'x' can't be a variable"),
        ({"env": {"A": "x\0"}}, "can't be a variable"),
        ({"cwd": 5}, "cannot start with cwd=5: it is no path"),
        ({"cwd": "/nowhere"}, "cannot start with cwd='/nowhere': there is no such folder"),
        ({"cwd": sys.executable}, "it is a file, no folder"),
        ({"cgroup": "/nowhere"}, "cannot start with cgroup='/nowhere': there is no such folder"),
        ({"cgroup": "/tmp"}, "it is no control group\n  -> give the path of one"),
        ({"netns": "blue"}, "cannot start with netns='blue': it is no network namespace"),
        ({"caps": "BPF"}, "cannot start with caps='BPF': it is no list of names\n  -> give one"),
        ({"caps": [5]}, "with capability 5: there is no such capability"),
        ({"user": -5}, "as user -5: it is neither a user's name nor a number"),
        ({"user": True}, "as user True: it is neither"),
        ({"ready": 70000}, "cannot start with ready=70000: it is no TCP port, 1 to 65535"),
        ({"ready": True}, "cannot start with ready=True: it is nothing that can be waited for"),
        ({"ready": b"x"}, "cannot start with ready=b'x': it is nothing"),
        ({"ready": ""}, "cannot wait for a line with '': it is empty"),
        ({"ready": "a\nb"}, r"cannot wait for a line with 'a\nb': it has the end of a line"),
        ({"ready": re.compile(b"x")}, "it is a pattern of bytes"),
        ({"timeout": -1}, "cannot wait with timeout=-1: it is no number of seconds"),
        ({"timeout": "5"}, "cannot wait with timeout='5'"),
        ({"timeout": float("inf")}, "cannot wait with timeout=inf"),
    ],
)  # fmt: skip
def test_options(options, message):
    with pytest.raises(LoaderError, match=re.escape(message)):
        Bpf(None).start(ONE, **options)


def test_methods(tmp_path):
    with Bpf(None).start(["sleep", "60"]) as agent:
        for call, message in (
            (lambda: agent.send_signal(99), "cannot send signal 99: there is no such signal"),
            (lambda: agent.send_signal("TERM"), "cannot send signal 'TERM': there is no such signal"),
            (lambda: agent.wait(-1), "cannot wait with timeout=-1"),
            (lambda: agent.wait_until_attached(5), "cannot wait until 5 is attached: it is no name"),
            (
                lambda: agent.wait_for_output(b"x"),
                "cannot wait for a line with b'x': it is neither a text nor",
            ),
            (lambda: agent.artifact("/etc/hostname", "../x"), "cannot fetch a file as '../x'"),
        ):
            with pytest.raises(LoaderError, match=re.escape(message)):
                call()


@pytest.mark.parametrize("pid", [True, 1.5, "1", -1])
def test_what_is_no_process(pid):
    with pytest.raises(
        LoaderError, match=f"cannot attach to process {re.escape(repr(pid))}: there is no such"
    ):
        Bpf(None).attach_to(pid)


def test_a_relative_file_is_below_the_folder_that_it_starts_in(tmp_path):
    with Bpf(None).start(["sh", "-c", "touch here; sleep 60"], cwd=tmp_path, ready=Path("here")):
        assert (tmp_path / "here").exists()
