"""Tests that a gateway which a signal has stopped is ended, also one that another process connects."""

from __future__ import annotations

import signal
import subprocess

import pytest

from pytest_bpfmaps.matrix.stopped_gateways import StoppedGateways
from pytest_bpfmaps.vm.gateway.journal import Journal

SLEEP = ["sleep", "1000"]


@pytest.mark.parametrize("is_connected", [False, True])
def test_it_is_ended(is_connected: bool) -> None:
    journal = Journal()
    stopped = StoppedGateways(journal.path, 0.1)
    with subprocess.Popen(SLEEP) as gateway, subprocess.Popen(SLEEP) as relay:
        try:
            stopped.add(
                "6.1", relay if is_connected else gateway, "6.1", gateway.pid if is_connected else None
            )
            gateway.send_signal(signal.SIGSTOP)
            assert gateway.wait(600) == -signal.SIGKILL
            assert relay.poll() is None
        finally:
            gateway.kill()
            relay.kill()
            stopped.close()
    entry = journal.end("6.1")
    assert entry is not None
    assert entry.event == "lost"
    assert f"the process that runs it, {gateway.pid}, was stopped by a signal" in entry.text
    journal.close()
