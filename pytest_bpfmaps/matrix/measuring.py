"""Measures the coverage of BPF programs in this process, as the options say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.items import KERNEL, RECORDING, option

if TYPE_CHECKING:
    from pytest_bpfmaps.coverage.recording import Recording

AUTO = "auto"


def is_measured(config: pytest.Config) -> bool:
    """Whether ``--bpf-cov``, or its key of the configuration file, asks for coverage."""
    return bool(option(config, "bpf_cov")) and not config.getoption("bpf_no_cov")


def records_blocks(config: pytest.Config) -> bool:
    """Whether guests are to record which code of programs runs, for the engine ``blocks``."""
    return is_measured(config) and option(config, "bpf_cov_engine") in (AUTO, "blocks")


def recording_of(config: pytest.Config) -> Recording | None:
    """Returns what counts in this process; None where nobody asked for it."""
    if not is_measured(config):
        return None
    if RECORDING not in config.stash:
        from pytest_bpfmaps.coverage.recording import Recording

        config.stash[RECORDING] = Recording(option(config, "bpf_cov_engine"), config.stash.get(KERNEL, HOST))
    return config.stash[RECORDING]


def counted(config: pytest.Config, test: str) -> dict[str, Any]:
    """Returns the counts since the last call as plain values; `test` is the id of the test that ran."""
    if RECORDING not in config.stash:
        return {}
    return config.stash[RECORDING].take(test if option(config, "bpf_cov_context") == "test" else "")
