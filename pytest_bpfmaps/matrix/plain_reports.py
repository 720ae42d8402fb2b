"""Makes reports plain before they are sent.

execnet carries Python's own simple types only, and text only where it is UTF-8. Any other value would end the
whole run in an internal error, and the test would stay unreported. Examples are the text of a ``char[]`` with
other bytes, a path given to ``record_property``, and an enum.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

TITLE = "Values changed for this report"
LEAST = -(1 << 31)  # the least integer that execnet 2.1 can send
MOST_BITS = 4096  # of an integer: Python refuses to write an integer of many more digits
MOST_DEPTH = 64
MOST_VALUES = 50_000  # of one report
_ASIS = (type(None), bool, float, complex, bytes)


def sending(send: Callable[..., None]) -> Callable[..., None]:
    """Returns a `sendevent` for pytest-xdist's worker that can send everything. It sends by `send`."""

    def sendevent(name: str, **facts: Any) -> None:
        try:
            send(name, **facts)
        except Exception:  # execnet has several errors for this; it raises them before it sends anything
            send(name, **plain_event(facts))

    return sendevent


def plain_event(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the same facts in simple types. A report among them gets a section that lists each change."""
    notes: list[str] = []
    made: dict[str, Any] = {name: plain(value, name, notes) for name, value in facts.items()}
    report = made.get("data")
    if notes and isinstance(report, dict) and isinstance(report.get("sections"), list):
        report["sections"].append((TITLE, "\n".join(notes)))
    return made


def plain(value: object, where: str, notes: list[str]) -> Any:
    """Returns `value` in types that execnet carries, and adds a line to `notes` for each value it changed.

    `where` says in that line which value it was. An exception in a method of a test's own class does not end
    this. No more than `MOST_VALUES` values are sent.
    """
    return _Reader(notes).plain(value, where, 0)


class _Reader:
    """Makes the values of one report plain."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        self._left = MOST_VALUES

    def plain(self, value: object, where: str, depth: int) -> Any:
        if type(value) in _ASIS:
            return value
        self._left -= 1
        if depth > MOST_DEPTH:
            return self._other(f"nested more than {MOST_DEPTH} deep", where, type(value))
        if self._left < 0:
            return self._other(f"left out: more than {MOST_VALUES} values", where, type(value))
        try:
            return self._read(value, where, depth)
        except (Exception, SystemExit) as error:  # raised by a method that a test defines
            kind = type(value)
            return self._other(f"<{_name(kind)} that can't be read: {_name(type(error))}>", where, kind)

    def _read(self, value: object, where: str, depth: int) -> Any:
        kind = type(value)  # a value may lie about its class
        if issubclass(kind, str):
            return self._text(str.__str__(value), where)
        if issubclass(kind, Mapping):
            return self._mapping(value, where, depth)  # type: ignore[arg-type]
        if issubclass(kind, list | tuple | set | frozenset):
            made = []
            for place, one in enumerate(value):  # type: ignore[arg-type, var-annotated]
                made.append(self.plain(one, f"{where}[{place}]", depth + 1))
                if self._left < 0:
                    break
            return tuple(made) if issubclass(kind, tuple) else made if issubclass(kind, list) else _set(made)
        return self._simple(value, where)

    def _mapping(self, value: Mapping[Any, Any], where: str, depth: int) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for own, item in value.items():
            key = self.plain(own, f"{where} key", depth + 1)
            try:
                taken = key in made
            except TypeError:  # a key that can't be hashed after the change
                key, taken = self._other(_representation(own), f"{where} key", type(own)), False
            if taken:  # for example a path and its own text are one key now: neither may be lost
                text = f"{key} ({_name(type(own))} {len(made)})"
                key = self._other(text, f"{where} key", type(own))
            made[key] = self.plain(item, f"{where}[{key!r}]", depth + 1)
            if self._left < 0:
                break
        return made

    def _simple(self, value: object, where: str) -> Any:
        if isinstance(value, int):
            if value.bit_length() > MOST_BITS:
                return self._other(hex(value), where, type(value))
            if value < LEAST:
                return self._other(str(int(value)), where, type(value))
            return int(value)
        if isinstance(value, float | complex | bytes | bytearray | memoryview):
            kind = next(k for k in (float, complex, bytes) if k is bytes or isinstance(value, k))
            return kind(value)  # type: ignore[arg-type]
        text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
        return self._other(text if isinstance(text, str) else repr(text), where, type(value))

    def _text(self, value: str, where: str) -> str:
        """Returns `value` with ``\\udcff`` for each byte that is no UTF-8, a lone surrogate in Python."""
        try:
            value.encode()
        except UnicodeEncodeError:
            self._notes.append(f"{_utf8(where)}: bytes that are no UTF-8 are shown as \\udc.., 80 to ff")
            return _utf8(value)
        return value

    def _other(self, text: str, where: str, kind: type) -> str:
        self._notes.append(f"{_utf8(where)}: {_name(kind)}, sent as text")
        return _utf8(str.__str__(text))


def _set(made: list[Any]) -> Any:
    """Returns a set, or a list where the elements are no longer hashable, or no longer different."""
    try:
        return frozenset(made) if len(frozenset(made)) == len(made) else made
    except TypeError:
        return made


def _name(kind: type) -> str:
    """Returns the name of a class, whatever the class itself says."""
    return str(type.__dict__["__name__"].__get__(kind))


def _representation(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<{_name(type(value))} without a text: {_name(type(error))}>"


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
