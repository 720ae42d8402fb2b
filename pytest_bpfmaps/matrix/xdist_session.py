"""Begins pytest-xdist's session when the tests are known. pytest-xdist itself would begin earlier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from pytest_bpfmaps.compat import other_plugins
from pytest_bpfmaps.compat.xdist_names import Distribution, asked_workers
from pytest_bpfmaps.matrix.terminal_lines import TerminalLines

Wanted = TypeVar("Wanted")


class Workers:
    """Keeps pytest-xdist from distributing tests; `begin` lets it, and `start` adds workers.

    `asked` is whether the command line asked for workers. `hosts` are their specifications.
    """

    def __init__(self, config: pytest.Config) -> None:
        option = config.option
        self.asked = option.dist != "no" and bool(option.tx)
        self.hosts = asked_workers(config)
        self._config = config
        self._dist = "load" if option.dist in ("no", "each") else option.dist
        self._distribution: Distribution | None = None
        option.dist, option.tx = "no", []

    def take(self, parse: Callable[[str], Wanted | None]) -> list[Wanted]:
        """Removes from `hosts` the specifications that `parse` recognises; returns what it made of them."""
        found = [(spec, parse(spec)) for spec in self.hosts]
        self.hosts = [spec for spec, made in found if made is None]
        self.asked = self.asked and bool(self.hosts)
        return [made for _, made in found if made is not None]

    def begin(
        self, session: pytest.Session, known: Sequence[object], specs: Sequence[str] | None = None
    ) -> None:
        """Does what pytest-xdist does when it is configured and when the session starts.

        `known` are the texts of failures and skips of the collection that are reported already. `specs` are
        the workers, by default those that the command line asked for.
        """
        config = self._config
        other_plugins.expect_workers(config)
        config.option.dist, config.option.tx = self._dist, list(specs or self.hosts)
        self._distribution = Distribution(config, known)
        config.pluginmanager.register(TerminalLines(config), "bpfmaps-terminal-lines")
        self._distribution.begin(session)

    def in_main_thread(self, function: Callable[[], None]) -> None:
        """Has the thread that distributes the tests call `function` soon."""
        if self._distribution is not None:
            self._distribution.in_main_thread(function)

    @property
    def is_ending(self) -> bool:
        """Whether no more tests are to be started: by ``-x``, too many crashed workers, or the end."""
        return self._distribution is not None and self._distribution.is_ending

    def start(self, spec: str) -> None:
        """Adds a worker in the middle of the session, as pytest-xdist replaces one that crashed."""
        assert self._distribution is not None
        self._distribution.add_worker(spec)
