"""Tests what a guest's worker does, and how long that may take, with a clock of the test."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pytest_bpfmaps.vm.protocol.phases import Countdown, Phase, Watch, WorkerStep


@dataclass
class Clock:
    """Counts seconds, and those that QEMU waited for a processor."""

    now: float = 100.0
    waited: float = 7.0

    def countdown(self) -> Countdown:
        return Countdown(lambda: self.waited, lambda: self.now)

    def run(self, countdown: Countdown, seconds: float, *, waited: float = 0.0) -> bool:
        """Looks as often as it must, for `seconds`. Returns whether the time was over at the end."""
        is_over, steps = False, round(seconds / countdown.LOOK)
        for _ in range(steps):
            self.now += countdown.LOOK
            self.waited += waited / steps
            is_over = countdown.is_over()
        return is_over


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_countdown_ends_when_its_seconds_are_over(clock: Clock) -> None:
    countdown = clock.countdown()
    countdown.start(5)
    assert countdown.pause == Countdown.LOOK
    assert not clock.run(countdown, 4)
    assert clock.run(countdown, 1)
    assert countdown.pause == 0
    countdown.start(5)
    assert not clock.run(countdown, 4)


def test_it_sleeps_no_longer_than_there_is_left(clock: Clock) -> None:
    countdown = clock.countdown()
    countdown.start(0.25)
    assert countdown.pause == 0.25


def test_time_without_a_processor_does_not_count(clock: Clock) -> None:
    countdown = clock.countdown()
    countdown.start(10)
    clock.run(countdown, 1)
    assert not clock.run(countdown, 40, waited=36)
    assert clock.run(countdown, 6)


def test_time_in_which_this_process_stood_still_does_not_count(clock: Clock) -> None:
    """A process is stopped by Ctrl-Z and continued by fg, or its machine sleeps."""
    countdown = clock.countdown()
    countdown.start(10)
    clock.now += 3600
    assert not countdown.is_over()
    assert not clock.run(countdown, 7)
    assert clock.run(countdown, 1)


def test_time_in_which_the_guest_waits_for_the_host_does_not_count(clock: Clock) -> None:
    countdown = clock.countdown()
    countdown.start(10)
    clock.run(countdown, 6)
    countdown.hold()
    countdown.hold()
    assert not clock.run(countdown, 60)
    countdown.go_on()
    assert not clock.run(countdown, 60)
    countdown.go_on()
    assert not clock.run(countdown, 3)
    assert clock.run(countdown, 1)


def test_each_step_has_the_limit_anew_and_more_if_it_says_so(clock: Clock) -> None:
    countdown = clock.countdown()
    watch = Watch(10, countdown)
    watch.enter(WorkerStep(Phase.START))
    assert not clock.run(countdown, 9)
    watch.enter(WorkerStep(Phase.TEST, "test_x.py::test_x", more=100))
    assert not clock.run(countdown, 109)
    assert clock.run(countdown, 1)
    watch.start_again()
    assert not clock.run(countdown, 109)
    watch.enter(WorkerStep(Phase.BETWEEN))
    assert clock.run(countdown, 10)


@pytest.mark.parametrize(
    ("steps", "noun", "why"),
    [
        ([WorkerStep(Phase.START)], "start of pytest", "it took more than 10 s; no test had begun"),
        (
            [WorkerStep(Phase.COLLECTION, "test_x.py")],
            "collection of test_x.py",
            "it took more than 10 s; no test had begun",
        ),
        ([WorkerStep(Phase.COLLECTION)], "collection", "it took more than 10 s; no test had begun"),
        ([WorkerStep(Phase.TEST, "a::b", more=2.5)], "test", "it ran for more than 12.5 s"),
        (
            [WorkerStep(Phase.TEST, "a::b"), WorkerStep(Phase.BETWEEN)],
            "step between tests",
            "it took more than 10 s; the last test was a::b",
        ),
        (
            [WorkerStep(Phase.TEST, "a::b"), WorkerStep(Phase.BETWEEN), WorkerStep(Phase.END)],
            "end of the session",
            "it took more than 10 s; the last test was a::b",
        ),
        (
            [WorkerStep(Phase.TEST, "a::b"), WorkerStep(Phase.ORDERS)],
            "guest",
            "it did not answer while it waited for orders; the last test was a::b",
        ),
    ],
)
def test_what_hangs_is_named(clock: Clock, steps: list[WorkerStep], noun: str, why: str) -> None:
    watch = Watch(10, clock.countdown())
    for step in steps:
        watch.enter(step)
    assert (watch.noun, watch.why) == (noun, why)


@pytest.mark.parametrize(
    "step", [WorkerStep(Phase.ORDERS), WorkerStep(Phase.TEST, "test_ä.py::test_x[6.1]", 1.5)]
)
def test_a_step_travels(step: WorkerStep) -> None:
    assert WorkerStep.read(step.message()) == step


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"phase": "runs"},
        {"phase": "sings", "at": "", "more": 0},
        {"phase": [], "at": "", "more": 0},
        {"phase": "runs", "at": 5, "more": 0},
        {"phase": "runs", "at": "x", "more": "long"},
        {"phase": "runs", "at": "x", "more": -1},
        {"phase": "runs", "at": "x", "more": float("nan")},
        {"phase": "runs", "at": "x", "more": None},
        {"phase": "runs", "at": "x", "more": float("inf")},
        {"phase": "runs", "at": "x", "more": "inf"},
        {"phase": "runs", "at": "x", "more": 1e9},
        {"phase": "runs", "at": "x", "more": 10**400},
        {"phase": "runs", "at": "x" * 70_000, "more": 0},
    ],
)
def test_what_is_no_step_is_none(message: dict[str, object]) -> None:
    assert WorkerStep.read(message) is None


def test_what_a_person_reads_who_interrupts() -> None:
    assert str(WorkerStep(Phase.COLLECTION, "test_x.py")) == "collects test_x.py"
    assert str(WorkerStep(Phase.END)) == "ends its session"


def test_a_guests_text_does_not_change_a_terminal() -> None:
    step = WorkerStep(Phase.TEST, "test_x.py::test_\x1b[2J\u202e\n")
    watch = Watch(10.0, Countdown(lambda: 0.0))
    watch.enter(step)
    watch.enter(WorkerStep(Phase.BETWEEN))
    assert str(step) == "runs test_x.py::test_?[2J??"
    assert watch.why.endswith("test_x.py::test_?[2J??")
