"""Decides which worker runs which test: each test has one kernel, and each kernel has its own worker.

What one worker runs is a lane; several workers of the host share one. See `pytest_bpfmaps.matrix.assignment`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import xdist.scheduler
from xdist.remote import Producer
from xdist.scheduler import LoadScheduling
from xdist.workermanage import WorkerController

from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.selection import lane_of

# How the host's workers share tests, by pytest-xdist's --dist. A kernel's guest is one worker.
SCHEDULERS = {
    "loadscope": xdist.scheduler.LoadScopeScheduling,
    "loadfile": xdist.scheduler.LoadFileScheduling,
    "loadgroup": xdist.scheduler.LoadGroupScheduling,
    "worksteal": xdist.scheduler.WorkStealingScheduling,
}


class KernelScheduling:
    """pytest-xdist's ``Scheduling`` for workers whose collections differ on purpose.

    Each lane has one of pytest-xdist's own schedulers, which does the work. This class sends each call to the
    right one. A lane starts as soon as its own workers have collected.
    """

    def __init__(self, workers: Mapping[str, int]) -> None:
        self._workers = dict(workers)  # lane -> number of workers
        self._lanes: dict[str, LoadScheduling] = {}
        self._idle: list[WorkerController] = []
        self._tell: Callable[[int], None] = lambda count: None

    def prepare(self, config: Any, log: Producer, tell: Callable[[int], None]) -> None:
        """Makes the lanes. `tell` is called with the number of tests that workers have collected so far."""
        self._tell = tell
        for name, count in self._workers.items():
            kind = SCHEDULERS.get(config.option.dist, LoadScheduling) if name == HOST else LoadScheduling
            lane = self._lanes[name] = kind(config, log)
            lane.numnodes = count

    def _lane(self, node: WorkerController) -> LoadScheduling:
        return self._lanes[lane_of(node.gateway)]

    @property
    def nodes(self) -> list[WorkerController]:
        """All workers."""
        return [*(node for lane in self._lanes.values() for node in lane.nodes), *self._idle]

    @property
    def collection_is_completed(self) -> bool:
        """Whether every worker has said what it collected."""
        return all(lane.collection_is_completed for lane in self._lanes.values())

    @property
    def tests_finished(self) -> bool:
        """Whether no worker has a test left, except the one that it is running."""
        return all(lane.tests_finished for lane in self._lanes.values())

    @property
    def has_pending(self) -> bool:
        """Whether tests are still to be done."""
        return any(lane.has_pending for lane in self._lanes.values())

    def add_node(self, node: WorkerController) -> None:
        """Takes up a worker that is ready."""
        if lane_of(node.gateway) in self._lanes:
            self._lane(node).add_node(node)
        else:
            self._idle.append(node)
            node.shutdown()

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Takes what a worker has collected, and hands out tests, whatever the other workers do."""
        if lane_of(node.gateway) in self._lanes:
            lane = self._lane(node)
            lane.add_node_collection(node, collection)
            if lane.collection_is_completed:
                _schedule(lane)
        known = (lane.collection for lane in self._lanes.values())
        self._tell(sum(len(tests) for tests in known if tests))

    def schedule(self) -> None:
        """Hands out tests when everything is collected (again, after a worker was replaced)."""
        for lane in self._lanes.values():
            _schedule(lane)

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """Notes that a worker has finished a test."""
        self._lane(node).mark_test_complete(node, item_index, duration)

    def mark_test_pending(self, item: str) -> None:
        """Has a test run again."""
        for lane in self._lanes.values():
            if item in (lane.collection or ()):
                lane.mark_test_pending(item)

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> None:
        """Takes back tests that a worker gave back."""
        self._lane(node).remove_pending_tests_from_node(node, indices)

    def remove_node(self, node: WorkerController) -> str | None:
        """Removes a worker, and returns the test that it was running when it died, if any.

        A worker that was interrupted, for example by ``q`` in a debugger or by `pytest.exit`, did not die.
        Raises KeyError for a worker that was never added.
        """
        if node in self._idle:
            self._idle.remove(node)
            return None
        if lane_of(node.gateway) not in self._lanes:
            raise KeyError(node)
        lane = self._lane(node)
        crashed: str | None = lane.remove_node(node)
        if lane_of(node.gateway) != HOST:  # pytest-xdist puts a lost worker's tests at the end
            lane.pending.sort()
        was_interrupted = getattr(node, "workeroutput", {}).get("exitstatus") == pytest.ExitCode.INTERRUPTED
        return None if was_interrupted else crashed

    def in_hand(self, node: WorkerController) -> list[str]:
        """Returns the tests that a guest's worker was given and has not finished."""
        lane = self._lanes.get(lane_of(node.gateway))
        if lane is None or lane.collection is None:
            return []
        return [lane.collection[place] for place in lane.node2pending.get(node, ())]

    def places_in_hand(self, node: WorkerController) -> list[int]:
        """Returns the places of these tests in what it collected. Any thread may call this."""
        lane = self._lanes.get(lane_of(node.gateway))
        return [] if lane is None else list(lane.node2pending.get(node, ()))

    def is_running(self, node: WorkerController) -> bool:
        """Returns whether a guest's worker has a test in hand."""
        lane = self._lanes.get(lane_of(node.gateway))
        return lane is not None and bool(lane.node2pending.get(node))

    def has_more_for(self, name: str) -> bool:
        """Returns whether tests wait for a worker of that lane."""
        lane = self._lanes.get(name)
        return lane is not None and bool(lane.pending)

    def give_up(self, name: str) -> None:
        """Expects nothing more from that lane, because no worker can be had for it."""
        self._lanes.pop(name, None)


def _schedule(lane: LoadScheduling) -> None:
    lane.schedule()
    if not lane.collection:
        for node in lane.nodes:
            node.shutdown()
