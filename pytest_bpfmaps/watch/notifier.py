"""A process that tells which files change: ``python -m pytest_bpfmaps.watch.notifier PARENT FOLDER…``.

It writes a line of JSON when it has begun, and one for each group of changes. It ends with its parent, whose
process id is PARENT. It is a process of its own, because it has threads, and the process that forks runs of
pytest must have none.
"""

from __future__ import annotations

import json
import signal
import sys

from pytest_bpfmaps.compat.watchfiles_names import start_watching
from pytest_bpfmaps.vm.machine.child_process import die_with

MOST_MS, STEP_MS, TIMEOUT_MS = 400, 10, 10_000
"""How long a group of changes may last, how long a step is, and how long a wait for a change is.

A group ends after a step without a change.
"""

_INSIDE = ("/.git/", "/__pycache__/", "/.pytest_cache/", "/.mypy_cache/", "/.ruff_cache/", "/node_modules/")


def main() -> None:
    """Tells changes until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    die_with(int(sys.argv[1]))
    try:
        watcher = start_watching(sys.argv[2:])
        _say({"watching": True})
        while True:
            found = watcher.watch(MOST_MS, STEP_MS, TIMEOUT_MS, None)
            if isinstance(found, set):
                paths = sorted({path for _, path in found if not any(part in path for part in _INSIDE)})
                if paths:
                    _say({"changed": paths})
    except (OSError, RuntimeError) as error:
        _say({"error": str(error)})


def _say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
