"""What the worker of a guest may send to pytest-xdist's controller, and what is left out."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from xdist.workermanage import Marker

from pytest_bpfmaps.matrix.worker_events import WorkerEvents, tame_warning

TESTS = ["test_x.py::test_a[6.1]", "test_x.py::test_b[6.1]"]
FOREIGN = "test_x.py::test_a[host]"
PLACE = ("test_x.py", 1, "test_a")
REPORT: dict[str, Any] = {
    "nodeid": TESTS[0],
    "location": PLACE,
    "keywords": {},
    "outcome": "passed",
    "longrepr": None,
    "when": "call",
    "user_properties": [("a", 1)],
    "sections": [("Captured", "text")],
    "duration": 0.1,
    "start": 0.0,
    "stop": 0.1,
    "$report_type": "TestReport",
    "item_index": 0,
    "worker_id": "6.1",
    "testrun_uid": "x",
}
ENDS = {"exitstatus": 0, "shouldfail": False, "shouldstop": False}


class Run:
    """The controller's side of one worker, which has begun the first of its tests."""

    def __init__(self, config: pytest.Config) -> None:
        self.passed: list[Any] = []
        self.faults: list[tuple[str, str]] = []
        self.hand = [0, 1]
        self.events = WorkerEvents(
            config,
            self.passed.append,
            is_foreign=FOREIGN.__eq__,
            in_hand=lambda: self.hand,
            fault=lambda test, text: self.faults.append((test, text)),
        )
        self.send("workerready", workerinfo={})
        self.send("collectionstart")
        self.send("collectionfinish", topdir="/", ids=list(TESTS))
        self.send("logstart", nodeid=TESTS[0], location=PLACE)
        assert len(self.passed) == 4

    def send(self, name: str, **facts: object) -> None:
        self.events.take((name, facts))

    def report(self, **values: object) -> None:
        self.send("testreport", data={**REPORT, **values})

    def complete(self, place: int) -> None:
        self.send("runtest_protocol_complete", item_index=place, duration=0.1)


@pytest.fixture
def run(pytestconfig: pytest.Config) -> Run:
    return Run(pytestconfig)


def test_what_a_worker_sends_is_passed_on(run: Run) -> None:
    run.report()
    run.send("logfinish", nodeid=TESTS[0], location=PLACE)
    run.complete(0)
    run.hand = [1]  # the controller has handled that
    run.report(nodeid=TESTS[1], outcome="skipped", longrepr=("test_x.py", 1, "Skipped: no"))
    run.complete(1)
    run.send("workerfinished", workeroutput={**ENDS, "other_plugin": [1]})
    run.events.take(Marker.END)
    assert len(run.passed) == 11
    assert run.passed[-1] is Marker.END
    assert run.faults == []


def test_a_report_of_a_real_failure_is_passed_on(run: Run, pytestconfig: pytest.Config) -> None:
    try:
        raise ValueError("it fails")
    except ValueError as error:
        shown = pytest.ExceptionInfo.from_exception(error).getrepr()
    report = pytest.TestReport(TESTS[0], PLACE, {}, "failed", shown, "call")
    data = pytestconfig.hook.pytest_report_to_serializable(config=pytestconfig, report=report)
    run.send("testreport", data=data)
    (name, facts) = run.passed[-1]
    read = pytestconfig.hook.pytest_report_from_serializable(config=pytestconfig, data=facts["data"])
    assert (name, read.longreprtext) == ("testreport", report.longreprtext)
    assert run.faults == []


deep: list[object] = []
for _ in range(100_000):
    deep = [deep]
FORGED: list[Any] = [
    7,
    None,
    ("testreport",),
    (["testreport"], {}),
    ("bogus", {}),
    ("wrong", {"event": 1}),
    ("_class__", {}),
    ("testreport", {"data": {}}),
    ("testreport", {"data": deep}),
    ("testreport", {}),
    ("collectreport", {"data": {**REPORT, "$report_type": "CollectReport"}}),
    ("internal_error", {"formatted_error": 7}),
    ("workerready", {"workerinfo": {}}),
    ("workerfinished", {}),
    ("workerfinished", {"workeroutput": ENDS}),
    ("workerfinished", {"workeroutput": {**ENDS, "exitstatus": "0"}}),
    ("collectionfinish", {"topdir": "/", "ids": []}),
    ("runtest_protocol_complete", {"item_index": 1, "duration": 0.1}),
    ("runtest_protocol_complete", {"item_index": "x", "duration": None}),
    ("unscheduled", {"indices": [1]}),
    ("logwarning", {"message": "m", "code": "c", "nodeid": "n", "fslocation": None}),
    ("logstart", {"nodeid": FOREIGN, "location": PLACE}),
    ("logstart", {"nodeid": [], "location": None}),
    ("warning_recorded", {"warning_message_data": {}, "when": 1, "nodeid": 1, "location": 1}),
]
WRONG: list[dict[str, object]] = [
    {"nodeid": FOREIGN},
    {"nodeid": 7},
    {"outcome": "\x1b[31m"},
    {"outcome": "skipped", "longrepr": 7},
    {"outcome": "skipped"},
    {"location": 7},
    {"duration": "x"},
    {"sections": [7]},
    {"sections": [("a", 7)]},
    {"user_properties": [7]},
    {"keywords": 7},
    {"longrepr": [1]},
    {"outcome": "failed", "longrepr": {"reprcrash": 7, "reprtraceback": deep}},
    {"toterminal": 7},
    {"passed": True},
    {"$report_type": "Nothing"},
    {"$report_type": None},
]


@pytest.mark.parametrize("event", [*FORGED, *(("testreport", {"data": {**REPORT, **one}}) for one in WRONG)])
def test_what_no_worker_sends_is_left_out_and_named(run: Run, event: Any) -> None:
    run.events.take(event)
    assert len(run.passed) == 4
    (fault,) = run.faults
    assert fault[0] == TESTS[0]
    assert fault[1].startswith("its worker sent what no worker sends, and it was left out: ")
    assert "\n  -> " in fault[1]
    assert fault[1].replace("\n", "").isprintable()
    assert len(fault[1]) < 500
    run.report()
    assert len(run.passed) == 5


def test_a_worker_can_not_collect_the_tests_of_another(pytestconfig: pytest.Config) -> None:
    passed: list[Any] = []
    faults: list[str] = []
    events = WorkerEvents(
        pytestconfig,
        passed.append,
        is_foreign=FOREIGN.__eq__,
        in_hand=list,
        fault=lambda test, text: faults.append(text),
    )
    events.take(("collectionfinish", {"topdir": "/", "ids": [FOREIGN]}))
    assert passed == []
    assert FOREIGN in faults[0]


def test_a_test_without_a_report_is_a_fault(run: Run) -> None:
    """Nobody would notice that it has no result."""
    run.complete(0)
    ((test, text),) = run.faults
    assert test == TESTS[0]
    assert "no report of it" in text
    assert len(run.passed) == 5


def test_a_test_is_completed_once(run: Run) -> None:
    run.report()
    run.complete(0)
    run.complete(0)
    assert len(run.passed) == 6
    assert len(run.faults) == 1


def test_a_worker_may_stop_the_run_early(run: Run) -> None:
    run.send("workerfinished", workeroutput={**ENDS, "shouldfail": "stopping after 1 failures"})
    assert len(run.passed) == 5


def test_the_text_of_an_internal_error_changes_no_terminal(run: Run) -> None:
    run.send("internal_error", formatted_error="a\n\x1b[31mb")
    assert run.passed[-1] == ("internal_error", {"formatted_error": "a\n\\x1b[31mb"})


def test_a_test_has_one_fault(run: Run) -> None:
    for _ in range(3):
        run.events.take(7)
    assert len(run.faults) == 1


@pytest.mark.parametrize("module", ["no_such_module", "os", "this"])
def test_a_warning_imports_nothing(module: str) -> None:
    data: dict[str, Any] = {
        "message_module": module,
        "message_class_name": "system",
        "message_args": ("true",),
        "message_str": "a text",
        "category_module": module,
        "category_class_name": "system",
    }
    loaded = set(sys.modules)
    tame_warning(data)
    assert set(sys.modules) == loaded
    assert (data["message_module"], data["message_str"]) == (None, f"{module}.system: a text")
    assert (data["category_module"], data["category_class_name"]) == ("builtins", "UserWarning")


def test_a_known_warning_keeps_its_class() -> None:
    names = ("message_module", "message_class_name", "category_module", "category_class_name")
    data = dict(zip(names, ("builtins", "ResourceWarning") * 2, strict=True))
    before = dict(data)
    tame_warning(data)
    assert data == before
