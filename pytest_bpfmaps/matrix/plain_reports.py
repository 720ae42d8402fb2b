"""Makes reports plain before they are sent: execnet carries simple values only.

execnet carries Python's own simple types only, and text only where it is UTF-8. A value of another kind would
end the whole run in an internal error, with the test unreported: text of a ``char[]`` with other bytes, a
path given to ``record_property``, an enum.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

TITLE = "Values changed for this report"
LEAST = -(1 << 31)  # of integers that execnet 2.1 can send
MOST_BITS = 4096  # of an integer: Python refuses to write down many more digits than that
MOST_DEPTH = 64
_ASIS = (type(None), bool, float, complex, bytes)


def sending(send: Callable[..., None]) -> Callable[..., None]:
    """A `sendevent` of pytest-xdist's worker that sends everything, by `send`."""

    def sendevent(name: str, **facts: Any) -> None:
        try:
            send(name, **facts)
        except Exception:  # execnet has several for what it can't carry; it raises before it sends anything
            send(name, **plain_event(facts))

    return sendevent


def plain_event(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same facts in simple types. A report among them gets a section that lists what was changed."""
    notes: list[str] = []
    made: dict[str, Any] = {name: plain(value, name, notes) for name, value in facts.items()}
    report = made.get("data")
    if notes and isinstance(report, dict) and isinstance(report.get("sections"), list):
        report["sections"].append((TITLE, "\n".join(notes)))
    return made


def plain(value: object, where: str, notes: list[str], depth: int = 0) -> Any:
    """`value` in types that execnet carries. Adds a line to `notes` for each that is another one now.

    `where` says in the line which value it was.
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
        except TypeError:  # a key that can't be one here
            key, taken = _other(repr(own), f"{where} key", notes, type(own)), False
        if taken:  # a path and its own text, for example: none of them may be lost
            key = _other(f"{key} ({type(own).__name__} {len(made)})", f"{where} key", notes, type(own))
        made[key] = plain(item, f"{where}[{key!r}]", notes, depth + 1)
    return made


def _set(made: list[Any]) -> Any:
    """Where elements are no longer hashable, or are alike now, it is a list."""
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
    except Exception as error:  # of a __str__ of the test's
        text = f"<{type(value).__name__} without a text: {type(error).__name__}>"
    return _other(text if isinstance(text, str) else repr(text), where, notes, type(value))


def _text(value: str, where: str, notes: list[str]) -> str:
    """Bytes that are no UTF-8 are in Python's text as lone surrogates; they become ``\\udcff``."""
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
    """A `process_from_remote` of pytest-xdist's controller that imports nothing which a worker names."""

    def process_from_remote(event: Any) -> None:
        if isinstance(event, tuple) and event[0] == "warning_recorded":
            try:
                tame_warning(event[1]["warning_message_data"])
            except (LookupError, TypeError):  # of a worker that sends something else under this name
                return
        receive(event)

    return process_from_remote


def tame_warning(data: dict[str, Any]) -> None:
    """Leaves a class of warnings in `data` where it is loaded here; else the warning is text."""
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
