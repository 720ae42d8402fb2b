"""What each guest of a run is doing, for a message after Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pytest_bpfmaps.vm.protocol.phases import IS_PREPARED, Phase

if TYPE_CHECKING:
    from pytest_bpfmaps.matrix.scheduling import KernelScheduling
    from pytest_bpfmaps.vm.gateway.journal import Journal


class GuestActivity:
    """The workers in guests, and the tests that have begun. `names` has every worker that there ever was."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self._nodes: dict[Any, float] = {}  # worker -> the time when it was started
        self._tests: dict[str, float] = {}

    def begin(self, node: Any) -> None:
        """Notes that a guest is started."""
        self.names[node.gateway.spec.id] = None
        self._nodes[node] = time.time()

    def end(self, node: Any) -> None:
        """Notes that a guest has ended."""
        self._nodes.pop(node, None)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Notes that a test has begun, in any process."""
        self._tests[nodeid] = time.time()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Notes that a test has ended."""
        self._tests.pop(nodeid, None)

    def doings(self, journal: Journal, scheduler: KernelScheduling | None) -> Iterator[str]:
        """Tells what each guest is doing, and for how long: ``6.1 runs test_x.py::test_x[6.1] (for 2 s)``."""
        for node, started in self._nodes.items():
            entry = next(reversed(journal.entries(node.gateway.spec.id)), None)
            tests = scheduler.in_hand(node) if scheduler is not None else []
            test = next((test for test in tests if test in self._tests), None)
            if test is not None:
                what, since = f"{Phase.TEST} {test}", self._tests[test]
            elif entry is None:
                what, since = "boots", started
            else:
                what, since = entry.text if entry.event == "doing" else Phase.ORDERS, entry.time
                what = IS_PREPARED if what.startswith(IS_PREPARED) else what
            yield f"{node.gateway.id} {what} (for {max(time.time() - since, 0):.0f} s)"
