"""Has the programs of objects read. What they do wrong with maps is a warning, unless it is allowed."""

from __future__ import annotations

import pytest

from pytest_bpfmaps.cost.map_warnings import MapReader
from pytest_bpfmaps.matrix.items import MAP_READER, is_bpf_item
from pytest_bpfmaps.report.allowed import allowed_by, of_markers

ALLOWED, MARKER = "bpf_allow_map_warnings", "bpf_map_warnings"


def begin(config: pytest.Config) -> None:
    """Has objects read in this process. Raises pytest.UsageError for a wrong line of the configuration."""
    reader = MapReader(allowed_by(config, ALLOWED))
    config.stash[MAP_READER] = reader
    config.pluginmanager.register(OfTest(reader), "bpfmaps-map-warnings")


class OfTest:
    """Tells the reader what a test allows."""

    def __init__(self, reader: MapReader) -> None:
        self._reader = reader

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Reads the markers of the test."""
        self._reader.of_test = list(of_markers(item, MARKER)) if is_bpf_item(item) else []
