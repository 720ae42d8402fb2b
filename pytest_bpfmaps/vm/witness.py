"""Where a guest's tasks stand when a test takes too long: asked of its first process, else of its kernel."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.kernel.splats import readable
from pytest_bpfmaps.vm.qemu import Machine

SHORTEST = 5.0  # seconds that an answer may take
LONGEST = 1 << 20  # bytes of it
_NOT_THE_TESTS = ("/_pytest/", "/pluggy/", "/execnet/")
NO_ANSWER = "process 1 did not answer, so that an NMI stopped the kernel: see the console"


def ask(machine: Machine, timeout: float) -> str:
    """The stacks in the guest, of a test that may take `timeout` seconds.

    Where process 1 does not run, each CPU gets an NMI, which also comes through where interrupts are off: the
    kernel panics (virtme.KERNEL_ARGUMENTS), and its console says where its CPUs are.
    """
    seconds = max(SHORTEST, timeout / 20)  # an emulated guest has more of both
    answer = _ask_process_1(machine, seconds)
    if answer:
        return answer
    try:
        machine.monitor().call("inject-nmi")
        machine.process.wait(seconds)
    except (VmError, subprocess.TimeoutExpired) as error:
        return f"none: process 1 did not answer, nor the kernel to an NMI ({error})"
    return NO_ANSWER


def _ask_process_1(machine: Machine, seconds: float) -> str:
    data = b""
    try:
        machine.alarm.settimeout(2 * seconds)  # half of it is the worker's
        machine.alarm.sendall(json.dumps({"seconds": seconds}).encode() + b"\n")
        while not data.endswith(b"\n") and len(data) < LONGEST:
            chunk = machine.alarm.recv(1 << 16)
            if not chunk:
                return ""
            data += chunk
        python, *others = json.loads(data)
        return "\n".join(f"--- {title}\n{text}" for title, text in (_cut(*python), *map(_shown, others)))
    except (OSError, ValueError, TypeError):
        return ""


def _shown(section: Sequence[object]) -> tuple[str, str]:
    title, text = map(str, section)
    return title, "\n".join(readable(text.splitlines())) or "none"


def _cut(title: object, text: object) -> tuple[str, str]:
    """Python's stacks as far as they are the test's: no frames of pytest, no thread that execnet reads in."""
    shown: list[str] = []
    for thread in re.split(r"\n(?=\S)", str(text).strip()):
        lines = thread.splitlines()
        end = next((i for i, line in enumerate(lines) if any(part in line for part in _NOT_THE_TESTS)), None)
        if end != 1:
            shown += lines[:end]
    return str(title), "\n".join(shown)
