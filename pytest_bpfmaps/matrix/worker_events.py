"""Checks what a guest's worker sends to pytest-xdist's controller, and leaves out what no worker sends.

A test in a guest has pytest-xdist's channel. The controller believes what comes there. A message that it
does not know would end the whole run, and a guest could report the tests of another kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import pytest

from pytest_bpfmaps.compat.xdist_names import is_end
from pytest_bpfmaps.errors import shown_lines

ONLY_PYTEST = "-> let pytest alone use pytest-xdist's channel, and keep its reports in pytest's form"
_MOST_SHOWN = 160  # characters of a value in a message
_ONCE = ("workerready", "collectionfinish", "internal_error")
_TITLES = ("message_module", "message_class_name", "message_str", "message_args")
_WARNING = (*_TITLES, "category_module", "category_class_name")
_OF_A_TEST = ("nodeid", "outcome", "when", "keywords", "location", "longrepr", "sections", "user_properties")
_OF_A_FILE = ("nodeid", "outcome", "longrepr", "sections")


def _is_location(value: object) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 3
        and isinstance(value[0], str)
        and (value[1] is None or isinstance(value[1], int))
        and isinstance(value[2], str)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _are_pairs(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, tuple | list) and len(one) == 2 and isinstance(one[0], str) for one in value
    )


def _are_sections(value: object) -> bool:
    return _are_pairs(value) and all(isinstance(text, str) for _, text in value)  # type: ignore[attr-defined]


_REPORT: dict[str, Callable[[object], bool]] = {
    "nodeid": lambda value: isinstance(value, str),
    "outcome": lambda value: isinstance(value, str) and value.isprintable(),
    "when": lambda value: value is None or isinstance(value, str),
    "keywords": lambda value: isinstance(value, dict),
    "location": _is_location,
    "duration": _is_number,
    "start": _is_number,
    "stop": _is_number,
    "sections": _are_sections,
    "user_properties": _are_pairs,
    "result": lambda value: value is None,
    "longrepr": lambda value: value is None or isinstance(value, str | dict | tuple),
}
"""What the values of a report are. Plugins add others."""


class WorkerEvents:
    """Passes on to `receive` what a worker of a guest may send, and calls `fault` for anything else.

    `is_foreign` tells whether another worker has a test. `in_hand` returns the numbers of the tests that this
    worker was given. `fault` takes the test that had begun last, and a sentence.
    """

    def __init__(
        self,
        config: pytest.Config,
        receive: Callable[[Any], None],
        *,
        is_foreign: Callable[[str], bool],
        in_hand: Callable[[], Sequence[int]],
        fault: Callable[[str, str], None],
    ) -> None:
        self._config, self._receive = config, receive
        self._is_foreign, self._in_hand, self._fault = is_foreign, in_hand, fault
        self._ids: list[str] = []
        self._known: set[str] = set()  # the same
        self._seen: set[str] = set()  # events that come once
        self._reported: set[str] = set()
        self._done: set[int] = set()
        self._test = ""
        self._faulty: set[str] = set()

    def take(self, event: Any) -> None:
        """Takes what came over the channel, or the sign that the channel was closed."""
        if not is_end(event):
            try:
                wrong = self._wrong(event)
            except Exception as error:  # whatever reads a report may raise anything
                wrong = f"{_shown(event)} ({type(error).__name__})"
            if wrong is not None:
                self._tell(wrong)
                return
        self._receive(event)

    def _tell(self, wrong: str) -> None:
        """Tells one fault for each test."""
        if self._test not in self._faulty:
            self._faulty.add(self._test)
            what = f"its worker sent what no worker sends, and it was left out: {wrong}"
            self._fault(self._test, f"{what}\n  {ONLY_PYTEST}")

    def _wrong(self, event: Any) -> str | None:
        """Returns what is wrong with an event; None when nothing is. Notes what it says."""
        if not (isinstance(event, tuple) and len(event) == 2 and _is_event(*event)):
            return _shown(event)
        name, facts = event
        check = getattr(self, f"_{name}", None)
        if check is None or name in self._seen or "workerfinished" in self._seen:
            return _shown(event)
        if wrong := check(**facts):
            return str(wrong)
        if name == "internal_error":
            facts["formatted_error"] = shown_lines(facts["formatted_error"])
        if name in (*_ONCE, "workerfinished"):
            self._seen.add(name)
        return None

    def _collectionstart(self) -> None:
        """Says that the collection begins."""

    def _workerready(self, workerinfo: Any) -> str | None:
        return None if isinstance(workerinfo, dict) else _shown(workerinfo)

    def _internal_error(self, formatted_error: Any) -> str | None:
        return None if isinstance(formatted_error, str) else _shown(formatted_error)

    def _collectionfinish(self, topdir: Any, ids: Any) -> str | None:
        if not isinstance(ids, list) or not all(isinstance(test, str) for test in ids):
            return f"collected tests: {_shown(ids)}"
        if others := [test for test in ids if self._is_foreign(test)]:
            return f"{_shown(others[0])}, a test of another worker, among the collected ones"
        self._ids, self._known = ids, set(ids)
        return None

    def _logstart(self, nodeid: Any, location: Any) -> str | None:
        if nodeid not in self._known or not _is_location(location):
            return f"the begin of {_shown(nodeid)}"
        self._test = nodeid
        return None

    def _logfinish(self, nodeid: Any, location: Any) -> str | None:
        return None if nodeid in self._known and _is_location(location) else f"the end of {_shown(nodeid)}"

    def _testreport(self, data: Any) -> str | None:
        wrong = _wrong_report(data, _OF_A_TEST) or self._unreadable(data)
        if wrong is None and data["nodeid"] not in self._known:
            wrong = f"a report of {_shown(data['nodeid'])}, a test that it does not have"
        if wrong is None:
            self._reported.add(data["nodeid"])
        return wrong

    def _collectreport(self, data: Any) -> str | None:
        if isinstance(data, dict) and data.get("outcome") == "passed":
            return "a report of a collection that passed"
        return _wrong_report(data, _OF_A_FILE) or self._unreadable(data)

    def _unreadable(self, data: Mapping[str, Any]) -> str | None:
        """Returns what pytest could not show of a report. It raises whatever pytest raises.

        pytest changes the data while it reads them, so it gets a copy.
        """
        report = self._config.hook.pytest_report_from_serializable(config=self._config, data=deepcopy(data))
        if report is None:
            return f"a report of the kind {_shown(data.get('$report_type'))}"
        hidden = [key for key in data if hasattr(type(report), key) and key not in _REPORT]
        if hidden:
            return f"a report whose {_shown(hidden[0])} would hide the report's own"
        if report.longrepr is not None:
            str(report.longreprtext)
        return None

    def _runtest_protocol_complete(self, item_index: Any, duration: Any) -> str | None:
        left = self._left()
        if type(item_index) is not int or left[:1] != [item_index] or not _is_number(duration):
            return f"the completion of test {_shown(item_index)}, which does not run"
        self._done.add(item_index)
        test = self._ids[item_index]
        if test not in self._reported:
            self._test = test
            self._tell("the completion of this test, and no report of it")
        return None

    def _workerfinished(self, workeroutput: Any) -> str | None:
        ends = workeroutput["exitstatus"], workeroutput["shouldfail"], workeroutput["shouldstop"]
        if not isinstance(ends[0], int) or not all(end is False or isinstance(end, str) for end in ends[1:]):
            return f"the end of its session, with {_shown(ends)}"
        if ends[0] == pytest.ExitCode.INTERRUPTED or any(ends[1:]) or not self._left():
            return None
        if ends[0] not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            # pytest.exit(…, returncode=N). With another number, pytest-xdist would take it for a crash.
            workeroutput["exitstatus"] = int(pytest.ExitCode.INTERRUPTED)
            return None
        return f"the end of its session, while {len(self._left())} tests were left"

    def _left(self) -> list[int]:
        """Returns the tests that the worker has in hand, the one that runs first."""
        return [place for place in self._in_hand() if place not in self._done]

    def _warning_recorded(
        self, warning_message_data: Any, when: Any, nodeid: Any, location: Any
    ) -> str | None:
        for name in _WARNING:
            warning_message_data[name]
        named = isinstance(when, str) and isinstance(nodeid, str)
        tame_warning(warning_message_data)
        return (
            None if named and (location is None or isinstance(location, tuple)) else "a warning of no place"
        )


def _is_event(name: object, facts: object) -> bool:
    return isinstance(name, str) and isinstance(facts, dict) and all(isinstance(fact, str) for fact in facts)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = "a value that is nested too deeply"
    return shown_lines(text[:_MOST_SHOWN])


def _wrong_report(data: Any, needed: Sequence[str]) -> str | None:
    """Returns what is wrong in a report: a value that it lacks, or one of another type than pytest's."""
    if not isinstance(data, dict):
        return f"a report that is {_shown(data)}"
    for name in needed:
        if name not in data:
            return f"a report without {name}"
    for name, value in data.items():
        if name in _REPORT and not _REPORT[name](value):
            return f"a report whose {name} is {_shown(value)}"
    is_skip = data["outcome"] == "skipped" and "wasxfail" not in data
    if is_skip and not (isinstance(data["longrepr"], tuple) and len(data["longrepr"]) == 3):
        return f"a skip whose longrepr is {_shown(data['longrepr'])}"
    return None


def tame_warning(data: dict[str, Any]) -> None:
    """Keeps a class of warnings in `data` where that class is loaded here; else the warning becomes text."""
    if not _is_known_warning(data["message_module"], data["message_class_name"]):
        kind = f"{data['message_module']}.{data['message_class_name']}"
        data["message_str"] = (
            f"{kind}: {data['message_str']}" if data["message_module"] else data["message_str"]
        )
        data["message_module"] = None
    if not _is_known_warning(data["category_module"], data["category_class_name"]):
        data["category_module"], data["category_class_name"] = "builtins", "UserWarning"


def _is_known_warning(module: object, name: object) -> bool:
    found = getattr(sys.modules.get(str(module)), str(name), None)
    return isinstance(found, type) and issubclass(found, Warning)
