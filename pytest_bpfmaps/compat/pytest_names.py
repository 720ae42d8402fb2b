"""The private names of pytest that are used."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

import pytest


def redirect_terminal(config: pytest.Config, file: TextIO) -> None:
    """Makes pytest's terminal writer write to `file` from now on."""
    config.get_terminal_writer()._file = file


def temporary_folder(config: pytest.Config) -> Path:
    """Returns the folder of the run's temporary files. pytest-xdist gives each worker a folder below it."""
    factory: Any = config._tmp_path_factory  # type: ignore[attr-defined]
    return Path(factory.getbasetemp())


def config_maker() -> Callable[..., Any] | None:
    """Returns the function that makes the configuration of a run; None where a release has no such name."""
    import _pytest.config

    return getattr(_pytest.config, "get_config", None)


def set_config_maker(make: Callable[..., Any]) -> None:
    """Makes pytest call `make` for its configuration."""
    import _pytest.config

    _pytest.config.get_config = make


def without_rewriting_plugins() -> AbstractContextManager[Any]:
    """Keeps pytest from looking for plugins to rewrite in the metadata of all packages: it takes seconds."""
    from _pytest.assertion.rewrite import AssertionRewritingHook

    return mock.patch.object(AssertionRewritingHook, "mark_rewrite")


def report_without_workers(config: pytest.Config, terminal: Any) -> None:
    """Makes `terminal` show the tests of pytest-xdist's workers as it shows the tests of this process.

    A terminal reporter that is not pytest's own stays as it is.
    """
    if type(terminal) is not pytest.TerminalReporter:
        return
    show = terminal.pytest_runtest_logreport

    def show_without_worker(report: Any) -> None:
        node = vars(report).pop("node", None)
        show(report)
        if node is not None:
            report.node = node

    hook = config.hook
    _replace(hook.pytest_runtest_logreport, terminal, show_without_worker)
    _replace(hook.pytest_runtest_logstart, terminal, lambda: None)  # several tests begin at a time


def before_debugger(config: pytest.Config, begin: Callable[[], None]) -> None:
    """Makes pytest call `begin` before it starts its debugger, until the end of the run."""
    from _pytest.debugging import pytestPDB

    start = pytestPDB._init_pdb

    def started(*arguments: Any, **options: Any) -> Any:
        begin()
        return start(*arguments, **options)  # type: ignore[no-untyped-call]

    pytestPDB._init_pdb = started  # type: ignore[method-assign]
    config.add_cleanup(lambda: setattr(pytestPDB, "_init_pdb", start))


def debug_failure(item: pytest.Item, excinfo: Any, report: Any) -> None:
    """Shows a failure, and starts the debugger where it happened, as ``--pdb`` does."""
    from _pytest.config import create_terminal_writer
    from _pytest.debugging import _postmortem_exc_or_tb, post_mortem

    writer = create_terminal_writer(item.config, sys.stdout)
    for title, text in report.sections:
        writer.sep(">", title)
        writer.line(text.rstrip("\n"))
    writer.sep(">", "traceback")
    report.toterminal(writer)
    writer.sep(">", "entering PDB")
    post_mortem(_postmortem_exc_or_tb(excinfo))


def suspend_capture(config: pytest.Config) -> None:
    """Stops pytest from capturing output, and from keeping input away, until it captures again."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend(in_=True)


def is_capturing(config: pytest.Config) -> bool:
    """Returns whether pytest captures output at this moment."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    captured = getattr(capture, "_global_capturing", None)
    return captured is not None and getattr(captured.out, "_state", "") == "started"


def stopping_reason(terminal: Any, text: str) -> None:
    """Makes `terminal` show `text` for the exception that ended the run."""
    if (memo := terminal._keyboardinterrupt_memo) is not None:
        memo.reprcrash.message = text


def _replace(caller: Any, plugin: Any, function: Callable[..., None]) -> None:
    """Makes pluggy call `function` in place of the plugin's implementation of a hook."""
    for implementation in caller.get_hookimpls():
        if implementation.plugin is plugin:
            implementation.function = function
            names = inspect.signature(function).parameters
            implementation.argnames = tuple(names)
