"""Answers each request of a guest in time. The answer may be an error that says where the host hangs."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from pytest_bpfmaps.errors import VmTimeoutError
from pytest_bpfmaps.vm.protocol.rpc import Lines, dump_error

LIMIT = 300.0  # seconds for an answer; one run of clang may take 120


def answer(
    control: Lines, message: Mapping[str, Any], do: Callable[[str, str], str], limit: float = LIMIT
) -> None:
    """Has `do` do what `message` asks for, and sends the result, or an error after `limit` seconds."""
    answers: list[dict[str, str]] = []
    work = threading.Thread(target=lambda: answers.append(_done(message, do)), daemon=True)
    work.start()
    work.join(limit)
    made = answers[0] if answers else {"error": dump_error(_late(message, work, limit))}
    with suppress(OSError):  # the guest has ended
        control.send(made)


def _done(message: Mapping[str, Any], do: Callable[[str, str], str]) -> dict[str, str]:
    try:
        return {"result": do(message["call"], message["argument"])}
    except Exception as error:
        return {"error": dump_error(error)}


def _late(message: Mapping[str, Any], work: threading.Thread, limit: float) -> VmTimeoutError:
    frame = sys._current_frames().get(work.ident or 0)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else "none"
    return VmTimeoutError(
        f"cannot {message['call']}",
        on="on the host",
        why=f"it took more than {limit:g} s there",
        fix="look at the stack below: another process may hold a lock, or the disk is slow",
        details=f"--- the host\n{stack.rstrip()}",
    )
