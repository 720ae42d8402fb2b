"""Measures the coverage of BPF programs in this process, as the options say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.items import COSTS, KERNEL, MAP_READER, MAP_USAGE, RECORDING, option

if TYPE_CHECKING:
    from pytest_bpfmaps.coverage.recording import Recording
    from pytest_bpfmaps.objects.observer import Observer

AUTO = "auto"


def is_measured(config: pytest.Config) -> bool:
    """Returns whether ``--bpf-cov``, or its key of the configuration file, asks for coverage."""
    return bool(option(config, "bpf_cov")) and not config.getoption("bpf_no_cov")


def records_blocks(config: pytest.Config) -> bool:
    """Returns whether guests are to record which code of programs runs, for the engine ``blocks``."""
    return is_measured(config) and option(config, "bpf_cov_engine") in (AUTO, "blocks")


def counts_instructions(items: Iterable[pytest.Item]) -> bool:
    """Returns whether a test counts the instructions that programs execute."""
    return any("bpf_benchmark" in getattr(item, "fixturenames", ()) for item in items)


def recording_of(config: pytest.Config) -> Recording | None:
    """Returns what counts in this process; None where nobody asked for it."""
    if not is_measured(config):
        return None
    if RECORDING not in config.stash:
        from pytest_bpfmaps.coverage.recording import Recording

        wanted, mcdc = option(config, "bpf_cov_engine"), option(config, "bpf_cov_mcdc")
        config.stash[RECORDING] = Recording(wanted, config.stash.get(KERNEL, HOST), mcdc=bool(mcdc))
    return config.stash[RECORDING]


def observer_of(config: pytest.Config) -> Observer[Any, Any] | None:
    """Returns the observer of this process's objects, for costs, maps, coverage or several; or None."""
    recording = recording_of(config)
    found: Observer[Any, Any] | None = recording
    stash = config.stash
    asked: tuple[Any, ...] = (MAP_USAGE, COSTS, MAP_READER)
    recorders: list[Any] = [stash.get(key, None) for key in asked]
    for recorder in recorders:
        if recorder is not None:
            recorder.kernel = config.stash.get(KERNEL, HOST)  # a worker does not know it at the start
            found = recorder if found is None else Both(recorder, found)
    return found


class Both:
    """Tells two observers. The object that the second puts in place of the loaded one is used."""

    def __init__(self, first: Observer[Any, Any], second: Observer[Any, Any]) -> None:
        self._first, self._second = first, second

    def before_load(self, opened: Any) -> Any:
        """Tells both of an object that is configured."""
        self._first.before_load(opened)
        return self._second.before_load(opened)

    def loaded(self, loaded: Any) -> None:
        """Tells both of an object that is loaded."""
        self._first.loaded(loaded)
        self._second.loaded(loaded)

    def closing(self, loaded: Any) -> None:
        """Tells both that an object is about to be closed."""
        self._first.closing(loaded)
        self._second.closing(loaded)

    def other_process(self, name: str, programs: Any) -> None:
        """Tells both of an agent."""
        self._first.other_process(name, programs)
        self._second.other_process(name, programs)


def counted(config: pytest.Config, test: str) -> dict[str, Any]:
    """Returns the counts since the last call as plain values; `test` is the id of the test that ran."""
    if RECORDING not in config.stash:
        return {}
    return config.stash[RECORDING].take(test if option(config, "bpf_cov_context") == "test" else "")
