"""Tests that a user who can't load BPF programs on the host gets a guest without asking for it."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
from caches import CACHE

from pytest_bpfmaps.vm.kernels.catalogue import Catalogue


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can give up capabilities"
)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_without_privileges_bpf_tests_run_in_a_guest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    newest = list(Catalogue())[-1]
    pytester.makepyfile(
        f"""
        import os

        def test_loads(bpf):
            assert os.uname().release == "{newest.release}"
            assert bpf.create_map("array", value="u32", max_entries=1)[0] == 0

        def test_plain():
            assert os.uname().release == "{os.uname().release}"
        """
    )
    without = ["setpriv", "--bounding-set=-all", sys.executable, "-m", "pytest"]
    result = pytester.run(*without, "-v", "--bpf-vm-timeout=120", "-n", workers)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "bpfmaps: not on the host: uid 0 has no CAP_BPF",
            f"bpfmaps: kernels {newest.name} ({newest.release}*)",
        ]
    )
    result.stdout.fnmatch_lines_random(
        [f"*.py::test_loads[[]{newest.name}] PASSED*", "*.py::test_plain PASSED*"]
    )
