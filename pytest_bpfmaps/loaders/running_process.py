"""A process that a test started, or attached to: its output, its end, and why it ended."""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pytest_bpfmaps.errors import CaptureTimeoutError, Explanation, LoaderError
from pytest_bpfmaps.kernel.kmsg import oom_killed, seccomp_killed
from pytest_bpfmaps.kernel.polling import pauses
from pytest_bpfmaps.kernel.privileges import capabilities_of
from pytest_bpfmaps.kernel.release import shown_timeout, timeout_scale
from pytest_bpfmaps.loaders.arguments import check_file_name, check_line, check_signal, seconds_of
from pytest_bpfmaps.loaders.artifacts import fetch_of_process
from pytest_bpfmaps.loaders.closed_files import explain_closed_file
from pytest_bpfmaps.loaders.end_request import EndRequest, kill_all
from pytest_bpfmaps.loaders.endings import ending, explain_signal, is_refusal, last_lines
from pytest_bpfmaps.loaders.explanations import explain_written, without_perfmon
from pytest_bpfmaps.loaders.output import Collector, held_back, line_test
from pytest_bpfmaps.loaders.process_tree import (
    ProcessStat,
    ProcessTree,
    send_signal,
    wait_for_end_of,
)
from pytest_bpfmaps.loaders.readiness import Ready, describe_ready, is_ready
from pytest_bpfmaps.loaders.rejections import explain_rejection
from pytest_bpfmaps.loaders.seccomp import explain_kill, refused_by
from pytest_bpfmaps.loaders.spawn import Privileges
from pytest_bpfmaps.loaders.token_refusals import explain_token_refusal, refused_to_token
from pytest_bpfmaps.loaders.unheard_sigterm import CONTINUE, explain_unheard
from pytest_bpfmaps.triggers.reaper import reaper

_STOP = 5.0  # seconds that a process has after SIGTERM
_STOP_LATER = 7.0  # more seconds for one that does not ignore SIGTERM
_KILL = 5.0  # seconds that the kernel has to end a process


class RunningProcess:
    """A process with its children.

    `command` names it in messages. `child` is None for a process that this one did not start: such a process
    is not ended by `close`, and its output is not seen. `path` is its binary, `cwd` the folder that it began
    in. `folder` returns the folder for `artifact`. `rights` are those of `Bpf.start`.
    """

    def __init__(
        self,
        command: list[str],
        tree: ProcessTree,
        child: subprocess.Popen[bytes] | None,
        *,
        path: str = "",
        cwd: str = "",
        folder: Callable[[], Path] = Path.cwd,
        rights: Privileges | None = None,
    ) -> None:
        self.command = command
        self.pid = tree.pid
        self.returncode: int | None = None
        self._tree = tree
        self._child = child
        self._rights = rights
        self._seccomp, self._token = (rights.seccomp, rights.token) if rights else (None, None)
        self._path = path
        self._cwd = cwd
        self._folder = folder
        self._began = time.monotonic()
        self._ran_for: float | None = None
        self._asked_to_end = False
        self._request = EndRequest()
        self._sent: set[int] = set()
        self._open = True
        self._output: Collector | None = None
        self._capabilities = capabilities_of(str(self.pid)).get("CapEff")
        if child is not None and child.stdout and child.stderr:
            # the descriptors now belong to the collector
            self._output = Collector(os.dup(child.stdout.fileno()), os.dup(child.stderr.fileno()))
            child.stdout.close()
            child.stderr.close()
            if tree.mark is not None:
                reaper.watch_mark(tree.mark)

    # what it wrote

    @property
    def stdout(self) -> str:
        """What it wrote to its standard output so far. Of a long text, the beginning and the end are kept."""
        return self._output.stdout if self._output else ""

    @property
    def stderr(self) -> str:
        """What it wrote to its standard error so far. Of a long text, the beginning and the end are kept."""
        return self._output.stderr if self._output else ""

    def wait_for_output(self, wanted: str | re.Pattern[str], timeout: float = 10.0) -> str:
        """Returns the first line, on either stream, that contains a text or a match of a pattern.

        A line counts when it has its end, or when the process has ended. `timeout` is in seconds. Raises
        `LoaderError` if the process ends without such a line, and `CaptureTimeoutError` (an `AssertionError`)
        if the line does not come in time.
        """
        if self._output is None:
            raise LoaderError(
                "cannot wait for output",
                on=f"of {self}",
                why="it was started by another process, which has its output",
                fix="start it by bpf.start(…)",
                errno=errno.EBADF,
            )
        check_line(wanted)
        line = self._output.find_line(
            line_test(wanted), seconds_of(timeout) * timeout_scale(), lambda: not self.pids
        )
        if line is not None:
            return line
        what = f"waited for a line with {getattr(wanted, 'pattern', wanted)!r}"
        if not self.pids:
            raise self.ended_early(what)
        if self._output.has_ended:
            raise CaptureTimeoutError(
                what,
                on=f"of {self}",
                why="it runs, but has closed its stdout and its stderr; no line came in "
                + shown_timeout(timeout),
                details=self.last_lines(),
                fix="wait for something else: a file, a port, agent.wait_until_attached(…)",
            )
        raise CaptureTimeoutError(
            what,
            on=f"of {self}",
            why=f"it did not come in {shown_timeout(timeout)}",
            details=last_lines(self.stdout, self.stderr),
            fix=CONTINUE if any(each.is_stopped for each in self.members()) else held_back(self.command),
        )

    def artifact(self, path: str | os.PathLike[str], name: str | None = None) -> Path:
        """Copies a file that it wrote to the test's `tmp_path` on the host, also from a guest.

        Returns the path there. A relative `path` is below the folder that it was started in. `name` is the
        file's new name, by default its own. Raises `LoaderError` if the file can't be read, or the name has a
        slash, and `VmError` if the host refuses it: the files of one guest may have 256 MiB together.
        """
        source = Path(self._cwd, path)
        if name is not None:
            check_file_name(name)
        name = name or source.name
        return fetch_of_process(self.pid, self.members, source, self._folder(), name, on=str(self))

    # waiting until it is ready

    def wait_until(
        self, condition: Callable[[], Any], what: str, timeout: float, details: Callable[[], str | None]
    ) -> Any:
        """Calls `condition` until it returns something true, and returns that. `what` is for messages.

        Raises `LoaderError` if the process ends before that; `CaptureTimeoutError` after `timeout` seconds.
        """
        waits = pauses(seconds_of(timeout))
        while True:
            found = condition()
            if found:
                return found
            running = self.members()
            if not running:
                found = condition()
                if found:
                    return found
                raise self.ended_early(what)
            pause = next(waits, None)
            if pause is None:
                raise CaptureTimeoutError(
                    what,
                    on=f"of {self}",
                    why=f"not in {shown_timeout(timeout)}",
                    details=details() or self.last_lines(),
                    fix=f"if it only needs longer, give timeout= more than {timeout:g} seconds",
                )
            # What is waited for gives no event: a port, a file in a folder that may be absent, any condition.
            wait_for_end_of(running[0], pause)

    def wait_until_ready(self, ready: Ready, timeout: float) -> None:
        """Waits for what `Bpf.start` was told to wait for."""
        if isinstance(ready, str | re.Pattern):
            self.wait_for_output(ready, timeout)
        else:
            self.wait_until(
                lambda: is_ready(ready, self, self.pids, self._cwd),
                f"waited for {describe_ready(ready, self._cwd)}",
                timeout,
                lambda: None,
            )

    def ended_early(self, what: str) -> LoaderError:
        """Returns the error that tells how it ended before something happened."""
        status = self._reap()
        if self._output:
            self._output.drain()
        text = f"{self.stdout}\n{self.stderr}"
        refusal = explain_rejection(text) if status else None
        if refusal:
            refusal = without_perfmon(refusal, self._capabilities)
        if self._token and refused_to_token(text, refusal):
            said = explain_token_refusal(self._token, self._capabilities, self._files(), text)
            refusal = said or refusal
        found = refusal.explanation if refusal else self._explain(status, text)
        written = [each for each in (refusal.details if refusal else "", self.last_lines()) if each]
        return LoaderError(
            what,
            on=f"of {self}",
            why=f"it {ending(status)}" + (f": {found.why}" if found else ""),
            details="\n".join(written) or None,
            fix=(found and found.fix)
            or f"run it by hand with the same arguments: {shlex.join(self.command)}",
            errno=errno.ECHILD,
            log=refusal.log if refusal else "",
        )

    def _explain(self, status: int | None, text: str) -> Explanation | None:
        if status == -signal.SIGKILL and self.pid in oom_killed(self._began):
            fix = "give the machine, or its cgroup's memory.max, more memory"
            return Explanation("the kernel's OOM killer ended it", fix)
        if status == 0:
            why = "its links have ended with it, except pinned ones, and nothing of it runs in the background"
            fix = "keep the agent running, in the background if you like, or make it pin its links"
            return Explanation(why, fix)
        if status == -signal.SIGSYS and self._seccomp is not None:
            return explain_kill(self._seccomp, seccomp_killed(self.pid, self._began))
        forbidden = refused_by(self._seccomp, "bpf", "perf_event_open") if is_refusal(text) else None
        closed = explain_closed_file(text, self._rights, self._capabilities, self._cwd)
        user = self._rights.name if self._rights else None
        found = closed or explain_written(text, forbidden, self._capabilities, user, self._files())
        is_ours = self._asked_to_end or -(status or 0) in self._sent
        return found or (None if is_ours else explain_signal(status, self.command))

    def _files(self) -> list[Path]:
        """Returns its binary and its arguments, in which its BPF objects may be."""
        return [Path(self._cwd, each) for each in (self._path, *self.command[1:])]

    def last_lines(self) -> str | None:
        """Returns the last lines that it wrote, for a message; None if there are none."""
        return last_lines(self.stdout, self.stderr)

    # its end

    @property
    def pids(self) -> list[int]:
        """The ids of the process and its descendants that run now; empty when all have ended."""
        return [each.pid for each in self.members()]

    def members(self) -> list[ProcessStat]:
        """Returns the processes that run now, the first process first."""
        running = self._tree.members()
        if self._child is not None and not any(each.pid == self.pid for each in running):
            self.returncode = self._child.wait()  # it has ended, so this returns at once
        if not running and self._ran_for is None:
            self._ran_for = time.monotonic() - self._began
        return running

    def _reap(self) -> int | None:
        if self._child is not None and self.returncode is None:
            self.returncode = self._child.poll()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal to the process; if it went into the background, to its descendants."""
        check_signal(number)
        self._sent.add(number)
        for each in self._first():
            send_signal(each, number)

    def _first(self) -> list[ProcessStat]:
        """Returns the process alone; if it went into the background, its descendants."""
        running = self.members()
        return [each for each in running if each.pid == self.pid] or running

    def terminate(self) -> None:
        """Asks it to end: SIGTERM."""
        self._asked_to_end = True
        self._request = EndRequest()
        self._request.send(self._first())

    def kill(self) -> None:
        """Ends it and its descendants at once by SIGKILL, and waits until they have ended."""
        self._asked_to_end = True
        self._wait_for_end(_KILL, kill_all)

    def wait(self, timeout: float = 10.0) -> int | None:
        """Waits until it and its descendants have ended. Returns its exit status, or minus a signal's number.

        Returns None for a process that another one started. `timeout` is in seconds. Raises `LoaderError`
        with the processes that have not ended. bpftrace gets SIGTERM again if it lost that of `terminate`.
        """
        left = self._wait_for_end(seconds_of(timeout), self._request.repeat_to_bpftrace)
        if left:
            first = left[0]
            why, fix = self._why_it_runs(first)
            raise LoaderError(
                f"waited {shown_timeout(timeout)} for the end of {self}",
                why=f"{' and '.join(map(str, left))} still run{'s' * (len(left) == 1)}{why}",
                details=self.last_lines(),
                fix=fix,
                errno=errno.ETIMEDOUT,
            )
        if self._output:
            self._output.drain()
        return self.returncode

    def _why_it_runs(self, first: ProcessStat) -> tuple[str, str]:
        if first.is_stopped:
            return f", because process {first.pid} is stopped", CONTINUE
        if not self._asked_to_end:
            return "", "call terminate() first"
        if first.pid != self.pid:
            return ", in the background", "let the program end its children; agent.kill() ends all"
        if refused := explain_unheard(first.pid):
            return refused
        return " after SIGTERM", "give wait() a longer timeout; or terminate() once more; or agent.kill()"

    def _wait_for_end(self, seconds: float, look: Callable[[list[ProcessStat]], object]) -> list[ProcessStat]:
        """Returns what still runs after at most `seconds`. Meanwhile it calls `look` with what runs now."""
        waits = pauses(seconds)
        while (running := self.members()) and (pause := next(waits, None)) is not None:
            look(running)
            # It looks again even while this one runs: a child is found only while its parent lives.
            wait_for_end_of(running[0], pause)
        return running

    def close(self) -> None:
        """Ends the process and its descendants, if this process started it. Safe to call again.

        They get SIGTERM. One that idles for five seconds gets it again: it may have lost the signal, as
        bpftrace 0.17 does. What still runs after twelve seconds, or after five if it ignores SIGTERM, gets
        SIGKILL; then this raises `LoaderError`.
        """
        if not self._open:
            return
        self._open = False
        try:
            if self._child is not None:
                self._end()
        finally:
            if self._output:
                self._output.close()

    def _end(self) -> None:
        began = time.monotonic()
        left = self._wait_for_end(_STOP, self._request.send_until_heard)
        if any(explain_unheard(each.pid) is None for each in left):
            left = self._wait_for_end(_STOP_LATER, self._request.send_until_heard)
        self._asked_to_end = True
        waited = time.monotonic() - began
        if left:
            why, fix = self._why_it_runs(left[0])
            self._wait_for_end(_KILL, kill_all)
        if self._tree.mark is not None:
            reaper.forget_mark(self._tree.mark)
        if left:
            raise LoaderError(
                f"cannot end {self}",
                why=f"{' and '.join(map(str, left))} still ran {waited:.0f} s later{why}; SIGKILL ended it",
                details=self.last_lines(),
                fix=f"{fix}; call agent.kill() in the test if it is meant to be killed",
                errno=errno.ETIMEDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        try:
            self.close()
        except LoaderError as e:
            if error is None:
                raise
            error.add_note(str(e))

    def sections(self) -> list[tuple[str, str]]:
        """Returns title and text of each section for the report of a failing test."""
        state = f"pid {self.pid}, {'runs' if self._reap() is None else ending(self.returncode)}"
        streams = {"stdout": self.stdout, "stderr": self.stderr}
        return [(f"Captured {n} of {self.command[0]} ({state})", text) for n, text in streams.items() if text]

    def __repr__(self) -> str:
        return f"<{self}, {'running' if self.pids else ending(self.returncode)}>"

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command[0]})"
