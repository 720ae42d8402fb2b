"""Measures ``--bpf-watch`` from saving a source to the verdict in the terminal."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import peers
from benchmark import WALL, Absent, Benchmark, Sides
from guests import kernel

from pytest_bpfmaps.kernel.running_kernel import RunningKernel

ROOT = Path(__file__).parents[2]
HOST_S, GUEST_S = 0.5, 0.7
SETTLED_S = 4.0  # a person reads and types meanwhile; the next guest starts
LIMIT_S = 300.0  # without a sign of life
END_S = 60.0


class Watched:
    """pytest --bpf-watch on one program of the gallery and its tests."""

    def __init__(self, program: str, *arguments: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-", dir=peers.scratch())
        folder = Path(self._folder.name)
        self._source = folder / f"{program}.bpf.c"
        shutil.copy(ROOT / "bpf" / self._source.name, folder)
        shutil.copy(ROOT / f"tests/gallery/test_{program}.py", folder)
        command = [sys.executable, "-m", "pytest", "-q", "--bpf-watch", *arguments]
        self._master, slave = os.openpty()
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        try:
            self._wait_for("waits for changes")
        except BaseException:
            self.close()
            raise

    def _wait_for(self, pattern: str) -> None:
        """Reads what pytest shows. Raises RuntimeError when it fails, ends, or does not show the pattern."""
        screen = ""
        while not re.search(pattern, screen):
            if not select.select([self._master], [], [], LIMIT_S)[0]:
                raise RuntimeError(f"pytest does not show {pattern!r}: {screen}")
            try:
                screen += os.read(self._master, 1 << 16).decode(errors="replace")
            except OSError:  # the other side of the terminal is closed
                raise RuntimeError(f"pytest has ended: {screen}") from None
        if re.search(r"\d (failed|error|skipped)", screen):
            raise RuntimeError(screen)

    def save(self) -> float:
        """Returns the seconds from a save to the line with the verdict: processor time or wall time."""
        time.sleep(SETTLED_S)
        before = self._now()
        with self._source.open("a") as file:
            file.write(f"// {time.time_ns()}\n")
        self._wait_for(r"\d passed.* in [\d.]+s")
        seconds = self._now() - before
        self._wait_for("waits for changes")
        return seconds

    def _now(self) -> float:
        """Returns the wall time, or the processor time that pytest and all that it started have used."""
        return time.perf_counter() if WALL in os.environ else sum(map(spent, of_session(self._process.pid)))

    def close(self) -> None:
        """Ends pytest and all that it has started, whatever it does now. Safe to call again."""
        if self._process.poll() is None:
            self._process.terminate()  # pytest passes it on to a run
        if self._master >= 0:
            os.close(self._master)  # else pytest could wait until somebody reads what it writes
            self._master = -1
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the kernel then ends what it has started
            self._process.wait()
        self._folder.cleanup()


def of_session(leader: int) -> Iterator[list[str]]:
    """Gives the fields of proc_pid_stat(5), after the name, of each process of a session."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                yield fields


def spent(fields: list[str]) -> float:
    """Returns the seconds of processor time of a process, and of its children that have ended."""
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def traces() -> bool:
    """Returns whether this host takes the gallery's process_counter."""
    return RunningKernel().has("tracepoint/syscalls/sys_enter_openat")


def host(stack: contextlib.ExitStack) -> Sides:
    """Measures process_counter, or drop_port where the host refuses tracing."""
    watched = Watched("process_counter" if traces() else "drop_port", "--bpf-kernel=host")
    stack.callback(watched.close)
    return watched.save, lambda: HOST_S


def guest(stack: contextlib.ExitStack) -> Sides:
    """Measures process_counter in a guest."""
    if shutil.which("clang") is None:
        raise Absent("apt-get install clang")
    watched = Watched("process_counter", f"--bpf-kernel={kernel().name}")
    stack.callback(watched.close)
    return watched.save, lambda: GUEST_S


BENCHMARKS = [
    Benchmark("watch-host", "s", "the goal", 1, host, lower=True),
    Benchmark("watch-guest", "s", "the goal", 1, guest, lower=True),
]
