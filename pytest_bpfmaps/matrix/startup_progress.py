"""Shows what guests do before their first test, so that a first run is not silent."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pytest_bpfmaps.matrix.guest_activity import GuestActivity
from pytest_bpfmaps.matrix.terminal_lines import write_line
from pytest_bpfmaps.vm.gateway.journal import Journal
from pytest_bpfmaps.vm.protocol.phases import IS_PREPARED

_PAUSE = 0.25  # seconds between two looks
_PATIENCE = 4  # looks before the live line appears: a warm guest takes no longer


class StartupProgress:
    """Prints a line when a guest's state is made. On a terminal a live line shows all that guests do.

    With ``-q`` there is only the live line, which leaves nothing on the screen. With ``-qq`` there is none.
    `in_main_thread` calls a function in the thread that writes to the terminal.
    """

    def __init__(
        self,
        config: pytest.Config,
        journal: Journal,
        activity: GuestActivity,
        in_main_thread: Callable[[Callable[[], None]], None],
    ) -> None:
        self._config = config
        self._terminal: Any = config.pluginmanager.getplugin("terminalreporter")
        self._journal, self._activity, self._in_main_thread = journal, activity, in_main_thread
        is_shown = self._terminal is not None
        self._prints = is_shown and config.get_verbosity() >= 0
        dumb = os.environ.get("TERM", "dumb") == "dumb" or "CI" in os.environ
        self._live = is_shown and config.get_verbosity() >= -1 and self._terminal.isatty and not dumb
        self._width = config.get_terminal_writer().fullwidth
        self._said: set[str] = set()
        self._looks = 0
        self._shown = ""
        self._over = threading.Event()

    def begin(self) -> None:
        """Begins to look, in a thread. `close` ends it."""
        if self._prints or self._live:
            threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        """Ends the thread. Safe to call again."""
        self._over.set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self) -> None:
        """Removes the live line before a result is shown."""
        self._live = False
        self._erase()

    def pytest_sessionfinish(self) -> None:
        """Removes the live line, and ends the thread."""
        self.pytest_runtest_logreport()
        self.close()

    def _watch(self) -> None:
        while not self._over.wait(_PAUSE):
            self._in_main_thread(self._show)

    def _show(self) -> None:
        if self._over.is_set():
            return
        self._looks += 1
        for name in self._activity.names:
            preparing = [e for e in self._journal.entries(name) if e.text.startswith(IS_PREPARED)]
            if self._prints and preparing and name not in self._said:
                self._said.add(name)
                self._line(f"bpfmaps: {name} {preparing[-1].text}")
        if self._live and self._looks > _PATIENCE:
            text = f"bpfmaps: {'; '.join(self._activity.doings(self._journal, None))}"
            if text != self._shown:
                self._terminal.rewrite(text[: self._width - 1], erase=True)
            self._shown = text

    def _line(self, text: str) -> None:
        self._erase()
        write_line(self._config, text)

    def _erase(self) -> None:
        if self._shown:
            self._shown = ""
            self._terminal.rewrite("", erase=True)
            self._terminal.write("\r")
