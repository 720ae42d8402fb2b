"""Which worker runs which test: each test has one kernel, and each kernel its own workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import xdist.scheduler
from xdist.remote import Producer
from xdist.scheduler import LoadScheduling
from xdist.workermanage import WorkerController

# The host's workers by pytest-xdist's --dist. A kernel's guest is one worker, with nothing to choose.
SCHEDULERS = {
    "loadscope": xdist.scheduler.LoadScopeScheduling,
    "loadfile": xdist.scheduler.LoadFileScheduling,
    "loadgroup": xdist.scheduler.LoadGroupScheduling,
    "worksteal": xdist.scheduler.WorkStealingScheduling,
}
HOST = "host"
IDLE = "idle"  # a worker that takes the place of one that is not to be replaced


def kernel_of(node: WorkerController) -> str:
    """The name of the kernel that a worker runs in."""
    return node.gateway.spec.bpfmaps or HOST


class KernelScheduling:
    """pytest-xdist's ``Scheduling`` for workers whose collections differ on purpose.

    One of xdist's own schedulers per kernel does the work; this one sends each call to the right one.
    `collected` is told how many tests there are, as soon as that is known.
    """

    def __init__(
        self,
        config: object,
        log: Producer,
        kernels: Iterable[str],
        dist: str,
        collected: Callable[[int], None],
    ) -> None:
        expected = list(kernels)
        self._lanes: dict[str, LoadScheduling] = {}
        self._collected = collected
        self._idle: list[WorkerController] = []
        for kernel in dict.fromkeys(expected):
            kind = SCHEDULERS.get(dist, LoadScheduling) if kernel == HOST else LoadScheduling
            lane = kind(config, log)
            lane.numnodes = expected.count(kernel)
            self._lanes[kernel] = lane

    def _lane(self, node: WorkerController) -> LoadScheduling:
        return self._lanes[kernel_of(node)]

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
        """Whether every worker has at most the test left that it is running."""
        return all(lane.tests_finished for lane in self._lanes.values())

    @property
    def has_pending(self) -> bool:
        """Whether tests are still to be done."""
        return any(lane.has_pending for lane in self._lanes.values())

    def add_node(self, node: WorkerController) -> None:
        """A worker is up."""
        if kernel_of(node) in self._lanes:
            self._lane(node).add_node(node)
        else:
            self._idle.append(node)
            node.shutdown()

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """A worker has collected its tests."""
        if kernel_of(node) in self._lanes:
            self._lane(node).add_node_collection(node, collection)

    def schedule(self) -> None:
        """Everything is collected (again, after a worker was replaced): hand out tests."""
        for lane in self._lanes.values():
            lane.schedule()
            if not lane.collection:
                for node in lane.nodes:
                    node.shutdown()
        self._collected(sum(len(lane.collection or ()) for lane in self._lanes.values()))

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """A worker has finished a test."""
        self._lane(node).mark_test_complete(node, item_index, duration)

    def mark_test_pending(self, item: str) -> None:
        """A test is to be run again."""
        for lane in self._lanes.values():
            if item in (lane.collection or ()):
                lane.mark_test_pending(item)

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> None:
        """A worker gave tests back."""
        self._lane(node).remove_pending_tests_from_node(node, indices)

    def remove_node(self, node: WorkerController) -> str | None:
        """A worker is gone; the test that it was running, if any. Raises KeyError for one never added."""
        if node in self._idle:
            self._idle.remove(node)
            return None
        if kernel_of(node) not in self._lanes:
            raise KeyError(node)
        crashed: str | None = self._lane(node).remove_node(node)
        return crashed

    def is_running(self, node: WorkerController) -> bool:
        """Whether a guest's worker has a test in hand."""
        lane = self._lanes.get(kernel_of(node))
        return lane is not None and bool(lane.node2pending.get(node))

    def has_more_for(self, kernel: str) -> bool:
        """Whether tests wait for a worker of that kernel."""
        lane = self._lanes.get(kernel)
        return lane is not None and bool(lane.pending)

    def give_up(self, kernel: str) -> None:
        """No worker for that kernel can be had: expect nothing from it."""
        self._lanes.pop(kernel, None)
