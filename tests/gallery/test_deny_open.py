"""Forbid to open a file, with an LSM program."""

import os
import subprocess

import pytest

pytestmark = pytest.mark.bpf_requires("lsm/file_open")


@pytest.fixture
def guard(bpf):
    return bpf.load("deny_open.bpf.c", globals={"target_pid": os.getpid(), "forbidden": "secret.txt"})


def test_the_file_can_not_be_opened(guard, tmp_path):
    secret, other = tmp_path / "secret.txt", tmp_path / "other.txt"
    secret.write_text("hush")
    other.write_text("hello")

    with guard.attach():
        with pytest.raises(PermissionError):
            secret.read_text()
        assert other.read_text() == "hello"

    assert guard.globals.attempts == 1
    assert secret.read_text() == "hush"


def test_other_processes_may_open_it(guard, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("hush")
    with guard.attach():
        assert subprocess.check_output(["cat", secret]) == b"hush"
    assert guard.globals.attempts == 0
