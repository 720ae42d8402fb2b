"""Why a guest ended: what its console says about it."""

from __future__ import annotations

import re
import signal

from pytest_bpfmaps.kernel.splats import headlines, reason
from pytest_bpfmaps.vm.alarm import ENDED

_WORKER = re.compile(rf"^{ENDED} (-?\d+)$", re.MULTILINE)
_NO_MEMORY = re.compile(r"\bOut of memory(?: \(.*\))?: Kill")


def why_it_ended(console: str, words: str, status: int) -> tuple[str, str | None]:
    """Why, and what to do if that is known.

    `console` is what was printed during the test, `words` the last of all, `status` QEMU's.
    """
    if panic := reason(words.splitlines()):
        return f"kernel panic: {panic}", None
    worker = _WORKER.search(words)
    ended = f"the worker ended {_how(int(worker[1]))}" if worker else f"QEMU ended {_how(status)}"
    said = headlines(console.splitlines())[:1]
    if not _NO_MEMORY.search(console):
        return "; ".join([*said, ended]), None
    return "; ".join([*said, "it had no memory left", ended]), "--bpf-vm-memory gives guests more"


def _how(status: int) -> str:
    return f"with status {status}" if status >= 0 else f"by signal {signal.Signals(-status).name}"
