"""Makes reports plain before they are sent.

execnet carries Python's own simple types only, and text only where it is UTF-8. Any other value would end the
whole run in an internal error, and the test would stay unreported. Examples are the text of a ``char[]`` with
other bytes, a path given to ``record_property``, and an enum.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

TITLE = "Values changed for this report"
LEAST = -(1 << 31)  # the least integer that execnet 2.1 can send
MOST_BITS = 4096  # of an integer: Python refuses to write an integer of many more digits
MOST_DEPTH = 64
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


def plain(value: object, where: str, notes: list[str], depth: int = 0) -> Any:
    """Returns `value` in types that execnet carries, and adds a line to `notes` for each value it changed.

    `where` says in that line which value it was.
    """
    if type(value) in _ASIS:
        return value
    if isinstance(value, str):
        return _text(value, where, notes)
    if depth > MOST_DEPTH:
        return _other(f"nested more than {MOST_DEPTH} deep", where, notes, type(value))
    if isinstance(value, Mapping):
        return _mapping(value, where, notes, depth)
    if isinstance(value, list | tuple | set | frozenset):
        made = [plain(one, f"{where}[{place}]", notes, depth + 1) for place, one in enumerate(value)]
        return tuple(made) if isinstance(value, tuple) else made if isinstance(value, list) else _set(made)
    return _simple(value, where, notes)


def _mapping(value: Mapping[Any, Any], where: str, notes: list[str], depth: int) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for own, item in value.items():
        key = plain(own, f"{where} key", notes, depth + 1)
        try:
            taken = key in made
        except TypeError:  # a key that can't be hashed after the change
            key, taken = _other(repr(own), f"{where} key", notes, type(own)), False
        if taken:  # for example a path and its own text are one key now: neither may be lost
            key = _other(f"{key} ({type(own).__name__} {len(made)})", f"{where} key", notes, type(own))
        made[key] = plain(item, f"{where}[{key!r}]", notes, depth + 1)
    return made


def _set(made: list[Any]) -> Any:
    """Returns a set, or a list where the elements are no longer hashable, or no longer different."""
    try:
        return frozenset(made) if len(frozenset(made)) == len(made) else made
    except TypeError:
        return made


def _simple(value: object, where: str, notes: list[str]) -> Any:
    if isinstance(value, int):
        if value.bit_length() > MOST_BITS:
            return _other(hex(value), where, notes, type(value))
        if value < LEAST:
            return _other(str(int(value)), where, notes, type(value))
        return int(value)
    if isinstance(value, float | complex | bytes | bytearray | memoryview):
        kind = next(k for k in (float, complex, bytes) if k is bytes or isinstance(value, k))
        return kind(value)  # type: ignore[arg-type]
    try:
        text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    except Exception as error:  # raised by a __str__ that a test defines
        text = f"<{type(value).__name__} without a text: {type(error).__name__}>"
    return _other(text if isinstance(text, str) else repr(text), where, notes, type(value))


def _text(value: str, where: str, notes: list[str]) -> str:
    """Returns `value` with ``\\udcff`` for each byte that is no UTF-8. Python has it as a lone surrogate."""
    value = str.__str__(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        notes.append(f"{_utf8(where)}: bytes that are no UTF-8 are shown as \\udc.., 80 to ff")
        return _utf8(value)
    return value


def _other(text: str, where: str, notes: list[str], kind: type) -> str:
    notes.append(f"{_utf8(where)}: {kind.__name__}, sent as text")
    return _utf8(text)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def receiving(receive: Callable[[Any], None]) -> Callable[[Any], None]:
    """Returns a `process_from_remote` for pytest-xdist's controller that imports no module a worker names."""

    def process_from_remote(event: Any) -> None:
        if isinstance(event, tuple) and event[0] == "warning_recorded":
            try:
                tame_warning(event[1]["warning_message_data"])
            except (LookupError, TypeError):  # a worker sends something else under this name
                return
        receive(event)

    return process_from_remote


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
