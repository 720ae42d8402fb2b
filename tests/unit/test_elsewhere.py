"""Tests the connection to a gateway on another machine. Here a shell is at its end; tests/kernel uses ssh."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from pytest_bpfmaps.vm.gateway import journal, ssh

FIRST = b"import sys;exec('id=\\'6.1-worker\\'')\n"


@pytest.fixture
def told():
    made = journal.Journal()
    yield made
    made.close()


def run(told: journal.Journal, script: str, more: bytes) -> subprocess.CompletedProcess[bytes]:
    """Returns the command that the connection passes on, with the arguments that execnet adds."""
    command = [
        sys.executable,
        "-m",
        ssh.__name__,
        told.path,
        f"sh -c '{script}'",
        "-u",
        "-c",
        "import sys",
    ]
    return subprocess.run(command, input=FIRST + more, capture_output=True, check=False)


def test_bytes_pass_and_the_journal_is_taken_out(told: journal.Journal) -> None:
    entry = journal.JournalEntry("6.1", "ready", "6.1.0", seconds=1.5)
    line = f"bpfmaps-journal {json.dumps(asdict(entry))}".replace('"', '\\"')
    script = (
        f'read -r first; printf 1; echo "{line}" >&2; echo "a word" >&2; printf "%s" "$first" | wc -c; cat'
    )
    done = run(told, script, b"binary \0\xff\n and more")
    assert done.stdout == f"1{len(FIRST) - 1}\n".encode() + b"binary \0\xff\n and more"
    assert done.stderr == b"a word\n"
    assert told.entries("6.1") == [entry]


def test_a_connection_that_fails_is_told(told: journal.Journal) -> None:
    done = run(told, "echo no route >&2; exit 255", b"")
    assert (done.returncode, done.stdout) == (255, b"1")
    (entry,) = told.entries("6.1")
    assert entry.event == "failed"
    assert "ssh ended with status 255: no route" in entry.text


def test_a_specification_names_machine_and_kernels() -> None:
    assert ssh.machine("popen") is None
    assert ssh.machine("ssh=builder") is None, "a worker for the host's tests"
    made = ssh.machine("ssh=-p 22 builder//bpfmaps=6.*//python=env A=1 /usr/bin/python3//chdir=/srv/a b")
    assert made is not None
    assert made.has("6.12")
    assert not made.has("5.10")
    command = made.command(["6.12", "--cpus", "2"], "/proc/1/fd/9")
    assert command[:4] == [sys.executable, "-m", ssh.__name__, "/proc/1/fd/9"]
    assert command[4] == (
        "ssh -C -p 22 builder 'cd '\"'\"'/srv/a b'\"'\"' && exec env A=1 /usr/bin/python3 -m "
        "pytest_bpfmaps.vm.gateway 6.12 --cpus 2 --journal stderr --judge'"
    )
