"""Runs the tests of one mutant after the other. Each has a fork of a process that has collected all tests.

The fork puts the changed code in place of a function's. A change of what runs on import gets a new process.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import resource
import select
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from types import CodeType, FunctionType
from typing import TextIO

import pytest

from mutation.places import Mutant, mutated

CPU_SECONDS = 10  # more than any test takes: what takes longer hangs
MOST_TESTS = 12  # in a process of their own
WALL_SECONDS = 300  # a test that waits for ever takes no processor time

CACHED = type(functools.cache(len))
ROOMS = ("btf", "maps", "events", "verifier")

Key = tuple[str, str, int]


def functions(root: str) -> dict[Key, list[FunctionType]]:
    """Returns the functions whose code is in files of the folder, by file, name and first line."""
    found: dict[Key, list[FunctionType]] = {}
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename.startswith(root):
            found.setdefault(_key(thing.__code__), []).append(thing)
    return found


def _key(code: CodeType) -> Key:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def changed(before: CodeType, after: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Gives the pairs of code that differ, and not only because something inside them differs."""
    inner = [_inner(code) for code in (before, after)]
    plain = [_alone(code) for code in (before, after)]
    if plain[0] != plain[1] or len(inner[0]) != len(inner[1]):
        yield before, after
        return
    for old, new in zip(*inner, strict=True):
        if old != new:
            yield from changed(old, new)


def _alone(code: CodeType) -> CodeType:
    """Returns code without the code inside it, and without line tables.

    The line table of a module has the columns where its functions end.
    """
    consts = tuple(each for each in code.co_consts if not isinstance(each, CodeType))
    return code.replace(co_consts=consts, co_linetable=b"")


def _inner(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


class Examples:
    """A plugin of pytest: hypothesis makes the same examples each time, and looks for no simpler ones."""

    def pytest_configure(self) -> None:
        """Sets the profile, after conftest.py has set another."""
        from hypothesis import Phase, settings  # pytest wants to be first

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", deadline=None, database=None, derandomize=True, phases=phases)
        settings.load_profile("mutants")


class Judge:
    """A plugin of pytest that forks for each mutant in place of running the tests.

    ``tests`` gives the tests of a mutant, the best first. ``tell`` takes the mutant, and what ended it:
    the test that failed, something else, or nothing.
    """

    def __init__(
        self, mutants: list[Mutant], tests: Callable[[Mutant], list[str]], tell: Callable[[Mutant, str], None]
    ) -> None:
        self._mutants = mutants
        self._tests = tests
        self._tell = tell

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Judges the mutants. It takes the place of pytest's own loop."""
        self._items = {item.nodeid: item for item in session.items}
        self._sound: set[str] = set()
        self._functions = functions(str(Path.cwd() / "pytest_bpfmaps"))
        self._caches = [each for each in gc.get_objects() if isinstance(each, CACHED)]
        gc.collect()
        gc.freeze()  # a fork then shares the memory
        for mutant in self._mutants:
            self._tell(mutant, self._judge(mutant))
        return True

    def _judge(self, mutant: Mutant) -> str:
        path = str(Path(mutant.path).resolve())
        try:
            after = compile(mutated(mutant), path, "exec", dont_inherit=True)
        except SyntaxError:
            return "no Python"
        pairs = list(changed(compile(Path(path).read_text(), path, "exec", dont_inherit=True), after))
        if not pairs:
            return "the same code"
        while tests := [test for test in self._tests(mutant) if test in self._items]:
            if any(a.co_freevars != b.co_freevars or _key(a) not in self._functions for a, b in pairs):
                how = self._in_new_process(mutant, tests)
            else:
                how = self._in_fork(pairs, tests)
            if how not in self._items or how in self._sound:
                return how
            if not self._in_fork([], [how]):
                self._sound.add(how)
                return how
            del self._items[how]  # it fails without the change, too
        return ""

    def _in_fork(self, pairs: list[tuple[CodeType, CodeType]], tests: list[str]) -> str:
        with TemporaryFile("w+") as answer:
            child = os.fork()
            if child == 0:
                try:
                    self._become(pairs)
                    print(run(self._items, tests), file=answer, flush=True)
                    os._exit(0)
                except BaseException:
                    os._exit(3)
            return _ended(child, answer)

    def _become(self, pairs: list[tuple[CodeType, CodeType]]) -> None:
        """Changes this process, which is the fork."""
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        for old, new in pairs:
            for function in self._functions[_key(old)]:
                function.__code__ = new
        for cache in self._caches:  # they know the answers of the unchanged code
            if any(cache.__module__.startswith(f"pytest_bpfmaps.{room}") for room in ROOMS):
                cache.cache_clear()

    def _in_new_process(self, mutant: Mutant, tests: list[str]) -> str:
        """Runs the tests in a new process, which imports a changed copy of the package."""
        with TemporaryDirectory() as folder, TemporaryFile("w+") as answer:
            shutil.copytree("pytest_bpfmaps", Path(folder, "pytest_bpfmaps"))
            Path(folder, mutant.path).write_text(mutated(mutant))
            child = os.fork()
            if child == 0:
                try:
                    os.setsid()
                    os.dup2(answer.fileno(), 1)
                    command = [sys.executable, sys.argv[0], "--one", *tests[:MOST_TESTS]]
                    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": folder})
                except BaseException:
                    os._exit(3)
            return _ended(child, answer)


def run(items: dict[str, pytest.Item], tests: list[str]) -> str:
    """Runs them in that order, each with a limit of processor time, and returns the first that fails."""
    failed = Failed()
    for test, after in zip(tests, [*tests[1:], None], strict=True):
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        item, following = items[test], items[after] if after else None
        if not item.config.pluginmanager.has_plugin("failed"):
            item.config.pluginmanager.register(failed, "failed")
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if failed.tests:  # its fixtures have cleaned up
            return failed.tests[0]
    return ""


class Failed:
    """A plugin of pytest: the tests that have failed."""

    def __init__(self) -> None:
        self.tests: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes a test that failed, also one whose fixture failed."""
        if report.failed:
            self.tests.append(report.nodeid)


def _ended(child: int, answer: TextIO) -> str:
    """Returns the test that failed in the child, or how else the child ended; empty if all passed."""
    with os.fdopen(os.pidfd_open(child)) as ended:
        late = not select.select([ended], [], [], WALL_SECONDS)[0]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # also what a test has started and left
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if late:
        return f"waiting longer than {WALL_SECONDS} s"
    if status < 0:
        return "processor time" if -status == signal.SIGXCPU else f"signal {-status}"
    answer.seek(0)
    test = answer.read().rstrip("\n").rpartition("\n")[2]
    return test if "::" in test else f"exit code {status}" if status else ""
