"""``--bpf-watch``: stays after a run, waits for changes of files, and runs the tests that depend on them."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def stay(config: pytest.Config) -> None:
    """Stays, and returns in each fork that is to run tests. Raises pytest.UsageError without watchfiles."""
    if find_spec("watchfiles") is None:
        raise pytest.UsageError(
            "--bpf-watch: cannot watch files: watchfiles is not installed\n"
            "  -> pip install 'pytest-bpfmaps[watch]'"
        )
    from pytest_bpfmaps.watch.watcher import stay as stay_with

    stay_with(config)
