"""The process that stays: it waits for changes and keys, and forks a process for each run.

It has parsed the command line and loaded the plugins, and has imported no file of the tests. So each run
begins there, and sees every change.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from pytest_bpfmaps import paths
from pytest_bpfmaps.errors import BpfError
from pytest_bpfmaps.vm.machine.child_process import die_with
from pytest_bpfmaps.watch.changes import Changes
from pytest_bpfmaps.watch.dependencies import EVERYTHING, Dependencies, Plan, Record
from pytest_bpfmaps.watch.inputs import inputs_of
from pytest_bpfmaps.watch.keys import single_keys, terminal
from pytest_bpfmaps.watch.run import Order, WatchedRun
from pytest_bpfmaps.watch.waiting_guests import WaitingGuests

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOWN = 3  # changed files that a line names
_SETTINGS = (
    "pytest.toml",
    ".pytest.toml",
    "pytest.ini",
    ".pytest.ini",
    "pyproject.toml",
    "tox.ini",
    "setup.cfg",
)


def stay(config: pytest.Config) -> None:
    """Stays until the person ends it; then it raises SystemExit. Returns in each fork that is to run tests.

    Raises pytest.UsageError where nothing can be watched.
    """
    watcher = Watcher(config)
    try:
        watcher.begin()
        while True:
            order = watcher.next_order()
            if watcher.fork(order):
                config.pluginmanager.register(WatchedRun(order), "bpfmaps-watched-run")
                return
            watcher.learn(order)
    except BpfError as error:
        raise pytest.UsageError(str(error)) from None
    except _StartAgain:
        watcher.close()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    finally:
        watcher.close()


class _StartAgain(Exception):
    """Something changed that this process has loaded."""


def _written(config: pytest.Config) -> Iterator[Path]:
    """Gives the folders that runs write into: the cache, files of failing tests, and temporary files."""
    yield Path(os.path.abspath(paths.cache_dir()))
    temporary = Path(os.path.abspath(tempfile.gettempdir()))
    if not any(Path(folder).is_relative_to(temporary) for folder in _folders(config)):
        yield temporary
    if artifacts := config.known_args_namespace.bpf_artifacts or config.getini("bpf_artifacts"):
        yield Path(os.path.abspath(config.invocation_params.dir / artifacts))


class Watcher:
    """What the process that stays keeps between runs. A fork that runs tests has nothing to close."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._project = _folders(config)
        self._changes: Changes | None = None
        self._guests = WaitingGuests()
        self._dependencies = Dependencies(self._inputs, _written(config))
        self._terminal = terminal()
        self._signals = {number: signal.getsignal(number) for number in SIGNALS}
        self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._child: int | None = None  # the process that runs tests
        self._ended_by = 0  # number of the signal that ends this process
        self._status = 0  # exit status of the last run
        self._todo: Plan | None = EVERYTHING
        self._is_first = True
        self._changed: list[str] = []
        self._files = _modules()
        self._settings = {str(config.rootpath / name) for name in _SETTINGS}

    def begin(self) -> None:
        """Begins to watch. Changes of files after this are noticed."""
        for number in SIGNALS:
            signal.signal(number, self._note_signal)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        self._watch(self._project)

    def _note_signal(self, number: int, frame: object) -> None:
        self._ended_by = number
        if self._child is not None and number != signal.SIGINT:  # the terminal sends that one to all
            os.kill(self._child, number)

    def _watch(self, folders: set[str]) -> None:
        new = Changes(folders)
        if self._changes is not None:
            self._changes.close()
        self._changes = new
        new.begin()

    def next_order(self) -> Order:
        """Waits until there is something to run. Raises SystemExit when the person ends it."""
        plan, self._todo = self._todo, None
        if plan is None:
            with single_keys(self._terminal):
                while not plan:
                    plan = self._wait()
        assert self._changes is not None
        record = os.memfd_create("bpfmaps-watch")
        return Order(plan, record, self._changes.folders, self._guests.offer(), self._is_first)

    def _wait(self) -> Plan | None:
        """Waits for a key, a signal or changes. Returns what to run, if anything."""
        assert self._changes is not None
        self._end_if_told()
        inputs = [self._wake[0], self._changes.fd, *([] if self._terminal is None else [self._terminal])]
        ready = select.select(inputs, [], [])[0]
        if self._wake[0] in ready:
            os.read(self._wake[0], 512)  # else it stays ready, and this process never sleeps again
        self._end_if_told()
        if self._terminal in ready:
            key = os.read(self._terminal or 0, 1)
            if key in (b"q", b"Q", b"\x04", b""):
                self._end(self._status)
            if key in (b"\n", b"\r"):
                return EVERYTHING
        if self._changes.fd in ready:
            return self._plan(self._changes.read())
        return None

    def _end_if_told(self) -> None:
        if self._ended_by:
            is_key = self._ended_by == signal.SIGINT
            self._end(pytest.ExitCode.INTERRUPTED if is_key else 128 + self._ended_by)

    def _end(self, status: int) -> NoReturn:
        raise SystemExit(status)

    def _plan(self, changed: Iterable[str]) -> Plan:
        self._check_folders()
        paths = self._dependencies.expand(map(Path, changed))
        self._check_loaded([*paths, *map(Path, changed)])
        if not paths:
            return Plan()
        plan = self._dependencies.plan(paths)
        names = [os.path.relpath(path, self._config.invocation_params.dir) for path in paths]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        told = "" if plan else ": no test depends on it"
        self.say(f"{', '.join(names[:_SHOWN])}{more} changed{told}")
        return plan

    def _check_folders(self) -> None:
        """Raises BpfError when a folder of the project is gone. Folders of headers elsewhere may go."""
        assert self._changes is not None
        gone = {folder for folder in self._changes.folders if not os.path.isdir(folder)}
        if needed := gone & self._project:
            fix = "start pytest again in a folder that exists"
            raise BpfError("cannot watch", on=min(needed), why="the folder was deleted or renamed", fix=fix)
        if gone:
            self._watch({*self._changes.folders} - gone)

    def _check_loaded(self, changed: Iterable[Path]) -> None:
        """Raises _StartAgain when this process has imported or read what has changed."""
        own = self._files | {str(self._config.inipath), *self._settings}
        if found := next((path for path in changed if str(path) in own), None):
            self.say(f"{found.name} changed, which pytest has loaded: pytest starts again")
            raise _StartAgain

    def say(self, text: str) -> None:
        """Writes a line for the person."""
        print(f"bpfmaps: {text}", flush=True)

    def fork(self, order: Order) -> bool:
        """Starts a run. Returns True in the process that is to run, and False here when the run has ended."""
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        gc.collect()
        gc.freeze()  # the collector of a run would touch, and so copy, every page of these objects
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until each process has its own handlers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a library that was imported may have threads, which lie idle
            child = os.fork()
        if child == 0:
            die_with(parent)
            self._leave()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            return True
        self._child = child
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        self._child = None  # before its number is free
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self._status = 128 - status if status < 0 else status  # as a shell says it of a signal
        return False

    def _leave(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._signals.items():
            signal.signal(number, handler)
        for fd in self._wake:
            os.close(fd)
        if self._changes is not None:
            self._changes.leave()
        self._changes, self._guests, self._wake = None, WaitingGuests(), (-1, -1)

    def learn(self, order: Order) -> None:
        """Reads what the run has told, and gets ready for the next one. Ends if the run was interrupted."""
        text = os.pread(order.record, os.fstat(order.record).st_size, 0)
        os.close(order.record)
        record = Record.from_plain(json.loads(text)) if text else Record()
        if self._ended_by == signal.SIGINT and record.debugged and not record.interrupted:
            self._ended_by = 0  # it was for the debugger
        self._end_if_told()
        self._is_first = False
        self._dependencies.learn(record)
        self._guests.prepare(record.guests, record.taken, all_ran=order.plan.everything and bool(text))
        assert self._changes is not None
        outside = self._dependencies.outside(self._changes.folders)
        if outside:
            self._watch({*self._changes.folders, *outside})
        keys = ": Enter runs all tests, q ends" if self._terminal is not None else ""
        self.say(f"waits for changes{keys}")
        _import(record.names)
        self._files |= _modules()

    def _inputs(self, made: Path) -> set[Path]:
        assert self._changes is not None
        return inputs_of(made, self._changes.folders)

    def close(self) -> None:
        """Ends everything that was started. Safe to call again."""
        self._guests.close()
        if self._changes is not None:
            self._changes.close()
            self._changes = None
        if self._wake[0] >= 0:
            signal.set_wakeup_fd(-1)
            for fd in self._wake:
                os.close(fd)
            self._wake = (-1, -1)


def _folders(config: pytest.Config) -> set[str]:
    """Returns the folders to watch: the root folder, and those of files that the command line names."""
    here = config.invocation_params.dir
    given = [
        Path(os.path.abspath(here / a.partition("::")[0])) for a in config.known_args_namespace.file_or_dir
    ]
    folders = [path if path.is_dir() else path.parent for path in given]
    return {str(config.rootpath)} | {
        str(folder) for folder in folders if folder.is_dir() and not folder.is_relative_to(config.rootpath)
    }


def _modules() -> set[str]:
    """Returns the files of the modules that this process has imported."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return {file for file in files if isinstance(file, str)}


def _import(names: Iterable[str]) -> None:
    """Imports what a run has imported, so that the next run need not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            if name not in sys.modules and name.rpartition(".")[2] != "__main__":
                with suppress(Exception):
                    importlib.import_module(name)
