"""What the host's own collection came to: what was left out, and what could not be looked into."""

from __future__ import annotations

from collections.abc import Sequence

import pytest


class Collected:
    """Watches the collection that guests' and other workers' tests are taken from."""

    def __init__(self, config: pytest.Config) -> None:
        self.skipped: list[str] = []  # files, relative to the root folder
        self._known: list[object] = []
        self._whole = not any("::" in argument for argument in config.args)
        self._session: pytest.Session | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Remember the session, which must know how many tests there are."""
        self._session = session

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note files that were not collected; a guest may be able to."""
        if report.failed:
            self._known.append(str(report.longrepr))
        elif report.skipped:
            self._known.append(report.longrepr)
            self.skipped.append(report.nodeid.partition("::")[0])

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note that there was a choice."""
        self._whole = self._whole and not items

    def are_all_wanted(self) -> bool:
        """Whether all tests of the files are to be run."""
        return self._whole

    def known(self) -> list[object]:
        """Why files were not collected, as workers would report it once more."""
        return self._known

    def tell(self, count: int) -> None:
        """pytest-xdist tells pytest the count of one worker, and that may have none: tell it that of all."""
        if self._session is not None:
            self._session.testscollected = count
