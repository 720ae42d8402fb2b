"""Finds in the package's own source what its errors say: each message, the reasons, and the remedies."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pytest_bpfmaps.manual.addresses import ADDRESSES

PACKAGE = Path(__file__).parents[1]
EXPLAINING = {
    "attach": "cannot-attach",
    "commands": "command-in-guest",
    "compiler": "cannot-compile",
    "kernel": "cannot-attach",
    "loaders/agent_objects.py": "no-such-name",
    "loaders/attach_refusals.py": "agent-ended",
    "loaders/closed_files.py": "agent-ended",
    "loaders/endings.py": "agent-ended",
    "loaders/exec_errors.py": "cannot-start-agent",
    "loaders/explanations.py": "agent-ended",
    "loaders/refused_objects.py": "agent-ended",
    "loaders/rejections.py": "agent-ended",
    "loaders/seccomp.py": "agent-ended",
    "loaders/token_refusals.py": "agent-ended",
    "loaders/running_process.py": "agent-ended",
    "maps/create_errors.py": "cannot-create-map",
    "maps/element_errors.py": "map-operation-refused",
    "maps/families": "map-operation-refused",
    "objects/diagnosis": "cannot-load",
    "verifier": "verifier-rejected",
    "vm/gateway": "guest-died",
}
"""The address of the errors that the explanations of a folder, or of a file, are for."""


class Message(NamedTuple):
    """What one error says. ``…`` stands for what differs from case to case. A part may be empty."""

    kind: str
    what: str
    why: str
    fix: str


class Reason(NamedTuple):
    """One explanation: why something failed, and what to do."""

    why: str
    fix: str


def messages(kinds: Iterable[str] = ADDRESSES) -> list[Message]:
    """Returns the messages of all errors of the classes `kinds`, as the code has them."""
    wanted = frozenset(kinds)
    found: set[Message] = set()
    for _, tree in _trees(wanted):
        for kind, what, call in _errors_made(tree):
            if kind not in wanted:
                continue
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            reasons, remedies = _texts(given.get("why")) or [""], _texts(given.get("fix")) or [""]
            for text in _texts(what) or [""]:
                on = " …" if text and "on" in given else ""  # the object on which it was tried
                found.update(Message(kind, text + on, why, fix) for why in reasons for fix in remedies)
    return sorted(found)


@functools.cache
def explanations() -> dict[str, list[Reason]]:
    """Returns the reasons that the package knows, by the file that has them."""
    found: dict[str, list[Reason]] = {}
    for file, tree in _trees(frozenset({"Explanation"})):
        reasons = found.setdefault(file, [])
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node.func) == "Explanation" and node.args:
                remedies = _texts(node.args[1]) if len(node.args) > 1 else []
                reasons += [Reason(text, "; or ".join(remedies)) for text in _texts(node.args[0])]
            elif isinstance(node, ast.Tuple) and len(node.elts) == 3 and file.startswith("verifier/"):
                # a row of a table: the verifier's words, why, and the remedy; or three regular expressions
                fix = "".join(_texts(node.elts[2]))
                reasons += [Reason(text, fix) for text in _texts(node.elts[1]) if "\\" not in text + fix]
    return {file: reasons for file, reasons in found.items() if reasons}


def address_of_explanations(file: str) -> str | None:
    """Returns the address of the errors that the explanations in `file` are for."""
    return next((EXPLAINING[part] for part in EXPLAINING if f"{file}/".startswith(f"{part}/")), None)


def _trees(names: frozenset[str]) -> Iterator[tuple[str, ast.Module]]:
    """Yields the modules that name one of `names`."""
    for file, text in _sources():
        if any(name in text for name in names):
            yield file, _parsed(text)


@functools.cache
def _sources() -> list[tuple[str, str]]:
    files = [each for each in sorted(PACKAGE.rglob("*.py")) if not each.is_relative_to(PACKAGE / "manual")]
    return [(str(each.relative_to(PACKAGE)), each.read_text()) for each in files]


@functools.cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


@functools.cache
def _errors_made(tree: ast.Module) -> list[tuple[str, ast.expr, ast.Call]]:
    """Returns the class, WHAT and the call of each ``SomeError(WHAT)`` and ``check(…, SomeError, WHAT)``."""
    return [
        (_name(made), what, call)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for made, what in pairwise([call.func, *call.args])
        if _name(made) in ADDRESSES
    ]


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _texts(node: ast.expr | None) -> list[str]:
    """Returns the texts that an expression may be, with an ellipsis for each part that is computed."""
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body), *_texts(node.orelse)]
    text = " ".join(_text(node).split())
    return [text] if text else []


def _text(node: ast.expr | None) -> str:
    match node:
        case ast.Constant(value=str() as value):
            return value
        case ast.JoinedStr():
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            text = "".join(map(str, parts))
            return text if text.strip("… ") else ""
        case ast.BinOp():
            left, right = _text(node.left), _text(node.right)
            return (left or "…") + (right or "…") if left or right else ""
    return ""
