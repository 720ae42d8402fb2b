"""Asks a guest where its tasks stand when a test takes too long."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.kernel.splats import readable
from pytest_bpfmaps.vm.machine.qemu import Machine

SHORTEST = 5.0  # seconds: the shortest limit for an answer
LONGEST = 1 << 20  # bytes of an answer
_NOT_THE_TESTS = ("/_pytest/", "/pluggy/", "/execnet/")
NO_ANSWER = "process 1 did not answer, so an NMI stopped the kernel: see the console"


def ask(machine: Machine, timeout: float) -> str:
    """Returns the stacks of the tasks in a guest, where a test may take `timeout` seconds.

    If process 1 does not answer, each CPU gets an NMI, which also arrives while interrupts are off. Then the
    kernel panics (`kernel_arguments.KERNEL_ARGUMENTS`), and its console shows where its CPUs are.
    """
    seconds = max(SHORTEST, timeout / 20)  # `timeout`, and so this, is longer for an emulated guest
    sections = _ask_process_1(machine, seconds, 2 * seconds)  # the worker gets half of it
    if sections:
        return _readable(sections)
    try:
        machine.monitor().call("inject-nmi")
        machine.process.wait(seconds)
    except VmError as error:
        return f"none: process 1 did not answer, and the kernel gets no NMI ({error})"
    except subprocess.TimeoutExpired:
        return "none: neither process 1 answered, nor the kernel to an NMI"
    return NO_ANSWER


def is_alive(machine: Machine, timeout: float) -> bool:
    """Returns whether process 1 answers, in a guest where a test may take `timeout` seconds."""
    return _ask_process_1(machine, 0, max(SHORTEST, timeout / 4)) is not None


def _ask_process_1(machine: Machine, seconds: float, patience: float) -> list[Any] | None:
    """Returns the answer of process 1 within `patience` seconds; None when there is none."""
    data, end = b"", time.monotonic() + patience
    try:
        machine.alarm.settimeout(patience)
        machine.alarm.sendall(b"%r\n" % float(seconds))
        while not data.endswith(b"\n") and len(data) < LONGEST:
            machine.alarm.settimeout(max(end - time.monotonic(), 0.01))
            chunk = machine.alarm.recv(1 << 16)
            if not chunk:
                return None
            data += chunk
        answer = json.loads(data)
        return answer if isinstance(answer, list) else None
    except (OSError, ValueError):
        return None


def _readable(sections: Sequence[Any]) -> str:
    try:
        shown = [
            (_cut if str(title).startswith("Python") else _shown)(title, text) for title, text in sections
        ]
        return "\n".join(f"--- {title}\n{text}" for title, text in shown)
    except (TypeError, ValueError):
        return f"none: process 1 answered {sections!r:.200}"


def _shown(title: object, text: object) -> tuple[str, str]:
    return str(title), "\n".join(readable(str(text).splitlines())) or "none"


def _cut(title: object, text: object) -> tuple[str, str]:
    """Cuts Python's stacks to the test's part: no frames of pytest, no thread in which execnet reads."""
    shown: list[str] = []
    for thread in re.split(r"\n(?=\S)", str(text).strip()):
        lines = thread.splitlines()
        end = next((i for i, line in enumerate(lines) if any(part in line for part in _NOT_THE_TESTS)), None)
        if end != 1:
            shown += lines[:end]
    return str(title), "\n".join(shown) or str(text).strip()  # no frame is the test's: show pytest's
