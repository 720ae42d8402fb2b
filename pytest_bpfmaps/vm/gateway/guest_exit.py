"""Explains by a guest's console why the guest ended."""

from __future__ import annotations

import re
import signal

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.splats import headlines, reason
from pytest_bpfmaps.vm.guest.supervisor import ENDED

_WORKER = re.compile(rf"^{ENDED} (-?\d+)$", re.MULTILINE)
_SWITCHED_OFF = {
    "reboot: Restarting system": "something in the guest restarted it, by reboot(2)",
    "reboot: Power down": "something in the guest switched it off, by reboot(2)",
    "reboot: System halted": "something in the guest halted it, by reboot(2)",
    "sysrq: Resetting": "something in the guest reset it, by sysrq b",
}
LEAVE_ON = "let pytest end the guest: a test must not run reboot, poweroff or halt"
_BY_SIGNAL = re.compile(r"terminating on signal (.+)$", re.MULTILINE)
_NO_MEMORY = re.compile(r"\bOut of memory(?: \(.*\))?: Kill")


def why_it_ended(console: str, words: str, status: int) -> Explanation:
    """Returns why a guest ended, and what to do if that is known.

    `console` is what it printed during the test, `words` are the last lines of all, `status` is QEMU's.
    """
    if panic := reason(words.splitlines()):
        return Explanation(f"kernel panic: {panic}", None)
    worker = _WORKER.search(words)
    if worker is None and (how := switched_off(words)):
        return Explanation(how, LEAVE_ON)
    ended = f"the worker ended {_how(int(worker[1]))}" if worker else _qemus_end(words, status)
    said = headlines(console.splitlines())[:1]
    if not _NO_MEMORY.search(console):
        return Explanation("; ".join([*said, ended]), None)
    return Explanation(
        "; ".join([*said, "it had no memory left", ended]), "--bpf-vm-memory gives guests more"
    )


def switched_off(words: str) -> str | None:
    """Returns how the guest's own programs ended it, if its last `words` say so; else None."""
    return next((how for sign, how in _SWITCHED_OFF.items() if sign in words), None)


def _qemus_end(words: str, status: int) -> str:
    if signalled := _BY_SIGNAL.search(words):
        return f"QEMU ended on signal {signalled[1]}"
    if status == 0:
        return "its CPU was reset, and its kernel said nothing about it (QEMU ended with status 0)"
    return f"QEMU ended {_how(status)}"


def _how(status: int) -> str:
    return f"with status {status}" if status >= 0 else f"by signal {signal.Signals(-status).name}"
