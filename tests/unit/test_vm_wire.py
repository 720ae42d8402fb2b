"""Tests the lines between a guest and its gateway, without a guest and without a gateway."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from processes import is_running

from pytest_bpfmaps.cache.unchanged_files import is_settled, state_of
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.errors import CompileError, VmLostError, VmTimeoutError
from pytest_bpfmaps.vm.gateway import answers, journal
from pytest_bpfmaps.vm.gateway.gateway import Gateway
from pytest_bpfmaps.vm.gateway.guest_exit import why_it_ended
from pytest_bpfmaps.vm.gateway.options import parse
from pytest_bpfmaps.vm.machine.qemu import Log, Machine
from pytest_bpfmaps.vm.protocol.phases import Phase, WorkerStep
from pytest_bpfmaps.vm.protocol.rpc import (
    FD_VARIABLE,
    GARBAGE,
    LONGEST,
    Host,
    Lines,
    RemoteCompiler,
    dump_error,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Waits for a test's threads: one that goes on might read what the next test writes to that number."""
    before = set(threading.enumerate())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs
        for one in (ours, theirs):
            with suppress(OSError):  # closed by the test
                one.shutdown(socket.SHUT_RDWR)
        for thread in set(threading.enumerate()) - before:
            thread.join(60)


def test_lines_arrive_whole_however_they_were_cut(pair: tuple[socket.socket, socket.socket]) -> None:
    lines = Lines(pair[0].fileno())
    for part in (b'{"a"', b": 1}\n{", b'"b": 2}\n'):
        pair[1].sendall(part)
    assert [lines.receive(), lines.receive()] == [{"a": 1}, {"b": 2}]
    pair[1].close()
    assert lines.receive() is None


def test_many_threads_may_send(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = Lines(pair[0].fileno()), Lines(pair[1].fileno())
    text = "x" * 50_000
    threads = [threading.Thread(target=sender.send, args=({"n": n, "text": text},)) for n in range(8)]
    for thread in threads:
        thread.start()
    received = [receiver.receive() for _ in threads]
    for thread in threads:
        thread.join()
    assert sorted(message["n"] for message in received if message) == list(range(8))


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"[]",
        b"7",
        b"\xff{",
        b'{"a": 1',
        b"[" * 100_000,
        b'{"garbage": "\\u001b[31m%s"}' % (b"x" * 500),
    ],
)
def test_a_line_that_is_none_of_ours_is_told_as_what_it_is(
    pair: tuple[socket.socket, socket.socket], line: bytes
) -> None:
    """When a line has no end, the next message is still complete."""
    lines, others = Lines(pair[0].fileno()), Lines(pair[1].fileno())
    for end in (b"\n", b""):
        pair[1].sendall(line + end)
        others.send({"a": 1})
        told = lines.receive()
        assert told is not None
        assert list(told) == [GARBAGE]
        assert str(told[GARBAGE]).startswith(repr(line[:20])[1:-1])
        assert len(told[GARBAGE]) < 200
        assert lines.receive() == {"a": 1}


def test_a_line_without_an_end_takes_no_more_memory_than_a_message_may(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    lines = Lines(pair[0].fileno())

    def write() -> None:
        with suppress(OSError):
            pair[1].sendall(b"x" * (2 * LONGEST))

    writer = threading.Thread(target=write)
    writer.start()
    told = lines.receive()
    assert told is not None
    assert str(told[GARBAGE]).startswith("'xxx")
    pair[0].shutdown(socket.SHUT_RDWR)  # else the writer would wait
    writer.join()


def test_a_process_that_a_test_forked_says_so_whatever_locks_are_held(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    host, told = Host(pair[0].fileno()), Lines(pair[1].fileno())
    with host._lines._sending:
        pid = os.fork()
        if pid == 0:
            host.say_forked("test_x.py::test_x")
            os._exit(0)
    assert told.receive() == {"fork": "test_x.py::test_x"}
    os.waitpid(pid, 0)


def test_a_request_that_takes_too_long_is_answered_with_where_the_host_is(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    may_go = threading.Event()

    def do(call: str, argument: str) -> str:
        if argument == "slow":
            may_go.wait()
        return call + argument

    def serve() -> None:
        control = Lines(pair[0].fileno())
        for message in control:
            answers.answer(control, message, do, limit=300.0 if message["argument"] == "quick" else 2.0)

    server = threading.Thread(target=serve)
    server.start()
    host = Host(pair[1].fileno())
    with pytest.raises(VmTimeoutError, match=r"cannot compile on the host: it took more than 2 s") as caught:
        host.call("compile", "slow")
    assert "may_go.wait()" in str(caught.value.details)
    may_go.set()
    assert host.call("compile", "quick") == "compilequick"
    pair[1].shutdown(socket.SHUT_RDWR)
    server.join()


def _answering(lines: Lines, answer: dict[str, str]) -> list[dict[str, str] | None]:
    asked: list[dict[str, str] | None] = []

    def serve() -> None:
        asked.append(lines.receive())
        lines.send(answer)

    threading.Thread(target=serve).start()
    return asked


COMPILED = '["/cache/x.bpf.o", ""]'  # path and warnings


def _serving(lines: Lines, answers: dict[str, str]) -> list[dict[str, str] | None]:
    """Answers each call by its name, until the other side closes."""
    asked: list[dict[str, str] | None] = []

    def serve() -> None:
        for message in lines:
            asked.append(message)
            lines.send({"result": answers[message["call"]]})

    threading.Thread(target=serve, daemon=True).start()
    return asked


def test_a_source_of_the_guest_travels(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    source = tmp_path / "x.bpf.c"
    source.write_text("int x;")
    compiler = RemoteCompiler(Host(pair[0].fileno()))
    asked = _serving(Lines(pair[1].fileno()), {"digest": "that of another text", "compile": COMPILED})
    assert compiler.compile(CompileRequest(source=str(source))) == Path("/cache/x.bpf.o")
    assert asked[1] is not None
    sent = CompileRequest.from_json(asked[1]["argument"])
    assert (sent.source, sent.code, sent.name, sent.include) == (None, "int x;", "x.bpf.c", (str(tmp_path),))


def test_a_source_that_the_host_has_does_not(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    source = tmp_path / "x.bpf.c"
    source.write_text("int x;")
    digest = sha256(b"int x;").hexdigest()
    asked = _serving(Lines(pair[1].fileno()), {"digest": digest, "compile": COMPILED})
    request = CompileRequest(source=str(source))
    RemoteCompiler(Host(pair[0].fileno())).compile(request)
    assert asked[1] == {"call": "compile", "argument": request.to_json()}


def test_an_unchanged_source_is_compared_once(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    source = tmp_path / "x.bpf.c"
    source.write_text("int x;")
    while not is_settled(state_of(source)):
        time.sleep(0.1)
    answers = {"digest": sha256(b"int x;").hexdigest(), "compile": COMPILED}
    asked = _serving(Lines(pair[1].fileno()), answers)
    request, compiler = CompileRequest(source=str(source)), RemoteCompiler(Host(pair[0].fileno()))
    compiler.compile(request)
    compiler.compile(request)
    assert [each["call"] for each in asked if each] == ["digest", "compile", "compile"]
    source.write_text("int y;")
    compiler.compile(request)  # the host still has the other text
    assert [each["call"] for each in asked if each] == ["digest", "compile", "compile", "digest", "compile"]
    assert "int y;" in (asked[-1] or {})["argument"]


def test_the_guests_compiler_asks_the_host(pair: tuple[socket.socket, socket.socket]) -> None:
    asked = _answering(Lines(pair[1].fileno()), {"result": COMPILED})
    request = CompileRequest(code="int x;", defines=(("A", "1"),))
    assert RemoteCompiler(Host(pair[0].fileno())).compile(request) == Path("/cache/x.bpf.o")
    assert asked == [{"call": "compile", "argument": request.to_json()}]


def test_the_hosts_error_is_raised_in_the_guest(pair: tuple[socket.socket, socket.socket]) -> None:
    error = CompileError("cannot compile", on="x.bpf.c", why="clang says", details="line 1", fix="mend it")
    _answering(Lines(pair[1].fileno()), {"error": dump_error(error)})
    with pytest.raises(CompileError) as caught:
        RemoteCompiler(Host(pair[0].fileno())).compile(CompileRequest(code="int x;"))
    assert str(caught.value) == str(error)


def test_a_lost_host_is_said(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(VmLostError, match="the connection to it is closed"):
        Host(pair[0].fileno()).call("compile", "{}")


@pytest.mark.parametrize("value", [None, "x", "987654"])
def test_only_a_guests_worker_has_a_host(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv(FD_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(FD_VARIABLE, value)
    assert Host.connect() is None


def test_a_worker_that_moves_on_while_it_is_asked_does_not_hang() -> None:
    gateway = Gateway(parse(["6.1"]))
    gateway.events.put(("fault", ("", "garbage")))
    assert not gateway._moved_on()
    gateway.events.put(("step", WorkerStep(Phase.BETWEEN)))
    assert gateway._moved_on()
    assert [event for event, _ in gateway.later] == ["fault", "step"]


def test_the_journal_keeps_workers_apart_and_outlives_nobody() -> None:
    book = journal.Journal()
    journal.write(book.path, journal.JournalEntry("6.1", "ready", release="6.1.0"))
    journal.write(book.path, journal.JournalEntry("5.10", "lost", text="guest died"))
    journal.write(book.path, journal.JournalEntry("6.1", "hung", console="last words"))
    assert [entry.event for entry in book.entries("6.1")] == ["ready", "hung"]
    last = book.end("5.10")
    assert last is not None
    assert last.text == "guest died"
    assert book.end("7.2") is None
    book.close()
    journal.write(book.path, journal.JournalEntry("6.1", "lost"))  # nobody reads the journal any more


BOOT = [f"[    0.{n:06}] line {n}" for n in range(100)]
PANIC = ["[    9.000001] Kernel panic - not syncing: Fatal exception", "[    9.000002] Call Trace:"]


@pytest.mark.parametrize("is_seen_late", [False, True])
def test_the_tail_of_a_console_starts_where_the_kernel_fell(is_seen_late: bool) -> None:
    log = Log("test")
    os.write(log.fd, "\r\n".join([*BOOT, ""]).encode())
    before = log.size()
    os.write(log.fd, "\r\n".join([*PANIC, ""]).encode())
    since = log.size() if is_seen_late else before  # the gateway is told of a test after it began
    assert log.tail(since=since).splitlines() == PANIC
    log.close()
    log.close()
    assert log.tail(since=since).splitlines() == PANIC


def test_the_tail_of_a_console_without_a_fall_is_its_end_and_of_this_test_only() -> None:
    log = Log("test")
    os.write(log.fd, "\r\n".join([*BOOT, ""]).encode())
    assert log.tail(10).splitlines() == BOOT[-10:]
    before = log.size()
    assert log.tail(10, before) == ""
    os.write(log.fd, b"[    9.000000] loop: module loaded\r\n")
    assert log.tail(10, before) == "[    9.000000] loop: module loaded"
    log.close()


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        ("--- console\n[    9.1] reboot: Restarting system", 0, "something in the guest restarted it"),
        ("--- console\n[    9.1] reboot: Power down", 0, "something in the guest switched it off"),
        ("--- console\n[    9.1] reboot: System halted", -9, "something in the guest halted it"),
        ("--- console\n[    9.1] sysrq: Resetting", 0, "something in the guest reset it"),
        ("--- console: empty", 0, "its CPU was reset, and its kernel said nothing about it"),
        (
            "--- QEMU\nqemu-system-x86_64: terminating on signal 15 from pid 7 (kill)",
            0,
            "QEMU ended on signal 15 from pid 7 (kill)",
        ),
        (
            "bpfmaps: the worker ended with status 3\n[    9.1] reboot: Restarting system",
            0,
            "the worker ended with status 3",
        ),
        ("--- console: empty", -9, "QEMU ended by signal SIGKILL"),
    ],
)
def test_why_a_guest_ended(words: str, status: int, why: str) -> None:
    assert why_it_ended("", words, status)[0].startswith(why)


def test_a_machine_dies_with_its_gateway_even_when_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pytest_bpfmaps.vm.machine.qemu import Machine\n"
        "machine = Machine([sys.executable, '-c', 'import time; time.sleep(1000)'], 'x86_64')\n"
        "print(machine.process.pid, flush=True); time.sleep(1000)"
    )
    gateway = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert gateway.stdout is not None
    machine = int(gateway.stdout.readline())
    gateway.send_signal(signal.SIGKILL)
    gateway.communicate()
    end = time.monotonic() + 600
    while is_running(machine):
        assert time.monotonic() < end, "it outlived its gateway"
        time.sleep(0.02)


def test_a_machine_that_is_closed_twice_is_closed() -> None:
    with Machine([sys.executable, "-c", "import time; time.sleep(1000)"], "x86_64") as machine:
        assert machine.process.poll() is None
    machine.close()
    assert machine.process.returncode == -signal.SIGKILL
    assert machine.last_words() == "--- console: empty"
