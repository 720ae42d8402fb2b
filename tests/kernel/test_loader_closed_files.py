"""Tests what is said of an agent that may not read a file: no capability for BPF opens it."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest

from pytest_bpfmaps import LoaderError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="it needs root")

LIBBPF = """
if cat "$0" > /dev/null 2>&1; then echo was read; exec sleep 60; fi
echo "libbpf: elf: failed to open $0: Permission denied" >&2; exit 1
"""
PYTHON = LIBBPF.replace(
    "libbpf: elf: failed to open $0: Permission denied", "[Errno 13] Permission denied: '$0'"
)
GO = LIBBPF.replace("libbpf: elf: failed to open $0: P", "2026/11/30 06:31:48 open $0: p")
COMMANDS = {
    "python": ["sh", "-c", PYTHON],
    "libbpf": ["sh", "-c", LIBBPF],
    "go": ["sh", "-c", GO],
}


@pytest.fixture
def closed():
    """A file that others may read, in a folder that they may not enter."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.bpf.o")
        path.touch(0o644)
        yield path


def refused(bpf, *words, **rights):
    with pytest.raises(LoaderError) as failed:
        bpf.start(words, ready="was read", **rights)
    return str(failed.value)


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_folder_that_its_user_may_not_enter(bpf, closed, kind):
    command = (*COMMANDS[kind], closed)
    told = refused(bpf, *command, user="nobody", caps=["BPF"])
    why = f"user 'nobody' may not read {closed}, because it may not enter the folder {closed.parent}\n"
    fix = f"chmod o+x {closed.parent}, or put the file into another folder, or add DAC_READ_SEARCH to caps="
    assert why in told
    assert told.endswith(f"-> {fix}")
    bpf.start(command, user="nobody", caps=["BPF", "DAC_READ_SEARCH"], ready="was read")  # the last remedy
    closed.parent.chmod(0o701)  # the first
    bpf.start(command, user="nobody", caps=["BPF"], ready="was read")


def test_a_file_that_its_user_may_not_read(bpf, closed):
    closed.parent.chmod(0o755)
    closed.chmod(0o640)
    command = (*COMMANDS["libbpf"], closed.name)
    told = refused(bpf, *command, user="nobody", cwd=closed.parent)
    assert f"user 'nobody' may not read {closed}\n" in told
    assert told.endswith(f"-> chmod o+r {closed}, or add DAC_READ_SEARCH to caps=")
    closed.chmod(0o644)
    bpf.start(command, user="nobody", cwd=closed.parent, ready="was read")


def test_root_needs_a_capability_for_files_of_others(bpf, closed):
    os.chown(closed, 1234, 1234)
    closed.chmod(0o600)
    command = (*COMMANDS["libbpf"], closed)
    assert f"root without CAP_DAC_OVERRIDE may not read {closed}\n" in refused(bpf, *command, caps=["BPF"])
    bpf.start(command, caps=["BPF", "DAC_READ_SEARCH"], ready="was read")


@pytest.mark.parametrize("rights", [{"user": "nobody", "caps": ["BPF", "DAC_OVERRIDE"]}, {}])
def test_what_may_be_read_is_not_the_reason(bpf, closed, rights):
    told = refused(bpf, "sh", "-c", f"echo {closed}: Permission denied >&2; exit 1", **rights)
    assert not re.search("may not (read|enter)", told)


def test_the_file_of_a_link(bpf, closed):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        link = Path(folder, "link")
        link.symlink_to(closed)
        told = refused(bpf, *COMMANDS["go"], link, user="nobody")
        assert f"may not read {link}, because it may not enter the folder {closed.parent}\n" in told


def test_the_program_of_a_link(bpf, closed):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        link = Path(folder, "link")
        link.symlink_to(closed)
        closed.chmod(0o755)
        told = refused(bpf, link, user="nobody")
        assert (
            f"its user may not enter the folder {closed.parent}\n  -> chmod o+x {closed.parent}, or" in told
        )
