"""Tests `bpfmaps shell` and `bpfmaps exec` with real guests, and with a terminal as a person has it."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from kernel_files import bzimage
from person import Person
from qemus import qemus_for, wait_until

from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

KERNEL = "6.1"
BPFMAPS = [sys.executable, "-m", "pytest_bpfmaps.cli"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runs commands in a folder of their own, and checks that no guest of theirs is left."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    wait_until(lambda: not qemus_for(tmp_path))


def execute(*command: str, data: bytes = b"", kernel: str = KERNEL) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*BPFMAPS, "exec", kernel, "--", *command], input=data, capture_output=True, check=False
    )


def test_a_command_has_the_kernel_the_files_and_its_streams(folder: Path) -> None:
    (folder / "here").write_text("of the host")
    done = execute("sh", "-c", "uname -r; cat here; id -u; echo said >&2; echo lost > new; exit 7")
    release, *rest = done.stdout.decode().split("\n")
    assert release.startswith("6.1.")
    assert rest == ["of the host0", ""]
    assert done.stderr.decode().split("\n")[-2:] == ["said", ""]
    assert done.returncode == 7
    assert not (folder / "new").exists()


def test_input_and_output_are_the_same_bytes() -> None:
    data = os.urandom(1_500_000)
    done = execute("sh", "-c", "tee /dev/stderr | sha256sum", data=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert done.stderr[-len(data) :] == data
    assert done.returncode == 0


def test_a_command_that_reads_nothing_of_much_input() -> None:
    assert execute("sh", "-c", "exec <&-; sleep 1; exit 3", data=bytes(5_000_000)).returncode == 3


def test_what_runs_on_in_the_background_does_not_matter() -> None:
    done = execute("sh", "-c", "sleep 1000 & echo done")
    assert (done.returncode, done.stdout) == (0, b"done\n")


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("no-such-command", 127, r"cannot run 'no-such-command' in kernel 6\.1: .* in PATH\n  -> "),
        ("./no-file", 127, r"cannot run './no-file' in kernel 6\.1: there is no such file in "),
        ("/etc/passwd", 126, r"cannot run '/etc/passwd' in kernel 6\.1: it is not executable\n  -> chmod"),
        ("/etc", 126, r"cannot run '/etc' in kernel 6\.1: it is a folder\n  -> "),
    ],
)
def test_what_is_not_there(command: str, status: int, message: str) -> None:
    done = execute(command)
    assert done.returncode == status
    assert re.search(message, done.stderr.decode())


def test_a_file_that_only_the_host_has() -> None:
    path = Path("/run/bpfmaps-test-command")
    with suppress(OSError):
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    if not path.exists():
        pytest.skip("only root can write to /run")
    try:
        done = execute(str(path))
    finally:
        path.unlink()
    assert done.returncode == 127
    assert "is on the host only: a guest has its own /dev, /proc, /run, /sys" in done.stderr.decode()


def test_a_signal_ends_the_command() -> None:
    assert execute("sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL


def test_the_kernel_panics() -> None:
    done = execute("sh", "-c", "echo c > /proc/sysrq-trigger")
    assert (done.returncode, done.stdout) == (255, b"")
    assert "kernel panic: sysrq triggered crash\n--- console\n" in done.stderr.decode()


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("host", "this machine runs it already\n  -> run the command without"),
        ("no-kernel", "no kernel 'no-kernel': the catalogue has "),
    ],
)
def test_no_such_kernel(kernel: str, message: str) -> None:
    done = execute("true", kernel=kernel)
    assert (done.returncode, done.stdout) == (255, b"")
    assert message in done.stderr.decode()


def test_a_pattern_for_several_kernels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(folder / "cache"))
    (folder / "bzImage").write_bytes(bzimage())
    for name in ("one", "two"):
        Catalogue().add(folder / "bzImage", name=name)
    done = execute("true", kernel="*")
    assert (done.returncode, done.stdout) == (255, b"")
    assert "'*' fits one, two" in done.stderr.decode()


def test_closed_streams() -> None:
    closed = subprocess.run(
        ["sh", "-c", f'"$@" exec {KERNEL} -- sh -c "cat; exit 4" <&- >&- 2>&-', "sh", *BPFMAPS], check=False
    )
    assert closed.returncode == 4
    assert subprocess.run(["sh", "-c", '"$@" kernels list >&-', "sh", *BPFMAPS], check=False).returncode == 0


def start(script: str) -> subprocess.Popen[bytes]:
    """Runs a script in a guest, and returns when it has printed its first line."""
    command = [*BPFMAPS, "exec", KERNEL, "--", "sh", "-c", f"echo ready; {script}"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_ctrl_c_goes_to_the_command() -> None:
    with start("trap 'echo caught; exit 5' INT; while :; do sleep 0.1; done") as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.read() == b"caught\n"
        assert process.wait() == 5


def test_the_second_ctrl_c_ends_the_guest() -> None:
    with start("trap 'echo caught' INT; while :; do sleep 0.1; done") as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == b"caught\n"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_the_guest_ends_with_this_command(number: signal.Signals, status: int) -> None:
    with start("sleep 1000") as process:
        process.send_signal(number)
        assert process.wait() == status


@pytest.fixture
def person(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    monkeypatch.setenv("SHELL", "/bin/sh")
    monkeypatch.setenv("PS1", "ready> ")
    who = Person([*BPFMAPS, "shell", KERNEL])
    try:
        who.sees("ready> ")
        yield who
    finally:
        who.end()


def test_a_shell_and_its_size(person: Person) -> None:
    person.type("stty size; uname -r; hostname\n")
    person.sees(r"\n31 87\r\n6\.1\..*\r\n6\.1\r\n")
    person.resize(40, 133)
    person.type("while [ \"$(stty size)\" != '40 133' ]; do :; done; echo resi''zed\n")
    person.sees("resized\r\n")
    person.type("exit 9\n")
    assert person.process.wait() == 9
    assert termios.tcgetattr(person.master) == person.before


def test_keys_go_to_the_program_in_the_foreground(person: Person) -> None:
    child = "sh -c 'echo wai''ting; exec sleep 1000'"
    person.type(f'trap "echo cau""ght" INT; {child}; echo af""ter\n')
    person.sees("waiting\r\n")
    person.type("\x03")
    person.sees("caught\r\nafter\r\n")
    person.type("tty; cat\n")
    person.sees("/dev/pts/0\r\n")
    person.type("grüße\x7f\x7fn\n")
    person.sees("grün\r\n")  # the terminal takes back whole characters
    person.type("\x04exit\n")
    assert person.process.wait() == 0


@pytest.mark.parametrize("how", ["closed", "ended"])
def test_the_terminal_goes_away(person: Person, how: str) -> None:
    person.type("trap '' HUP TERM; echo wai''ting; sleep 1000\n")
    person.sees("waiting\r\n")
    if how == "closed":
        person.close()
        assert person.process.wait() == 128 + signal.SIGHUP
    else:
        person.process.terminate()
        assert person.process.wait() == 128 + signal.SIGTERM
        assert termios.tcgetattr(person.master) == person.before


def test_the_kernel_panics_in_a_shell(person: Person) -> None:
    person.type("echo c > /proc/sysrq-trigger\n")
    person.sees(r"kernel panic: sysrq triggered crash\r\n--- console\r\n")
    assert person.process.wait() == 255
    assert termios.tcgetattr(person.master) == person.before


def test_a_shell_without_a_terminal() -> None:
    done = subprocess.run(
        [*BPFMAPS, "shell", KERNEL], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "bpfmaps: cannot start a shell: standard input is no terminal\n"
        f"  -> for a script: bpfmaps exec {KERNEL} -- COMMAND\n"
        "  see: bpfmaps docs command-in-guest\n"
    )
