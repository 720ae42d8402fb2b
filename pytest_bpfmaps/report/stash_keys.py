"""The keys of pytest's stash for what a run has collected: coverage, costs, and use of maps.

The page of ``--bpf-report`` is made of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_bpfmaps.cost.costs import Costs
    from pytest_bpfmaps.cost.map_usage import Usages
    from pytest_bpfmaps.coverage.view import View

COVERAGE: pytest.StashKey[View] = pytest.StashKey()
ALL_COSTS: pytest.StashKey[Costs] = pytest.StashKey()
USAGES: pytest.StashKey[Usages] = pytest.StashKey()
