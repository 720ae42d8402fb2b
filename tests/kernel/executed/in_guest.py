"""Measures by the engine ``blocks``, in a guest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from caches import CACHE

from pytest_bpfmaps.coverage.data import Coverage, KernelCoverage


def measure(
    tests: Path, root: Path, folder: Path, *options: str, kernel: str, engine: str = "blocks"
) -> KernelCoverage:
    """Returns what a run of the file `tests` in a guest has measured. `folder` gets the data."""
    data = folder / "data.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"]
    command += [f"--rootdir={root}", f"--bpf-kernel={kernel}", "--bpf-vm-timeout=120", "--bpf-cov"]
    command += [f"--bpf-cov-engine={engine}", "--bpf-cov-report=none", *options, str(tests)]
    environment = {**os.environ, "BPFMAPS_CACHE": str(CACHE), "BPF_COVERAGE_FILE": str(data)}
    environment["PYTEST_ADDOPTS"] = "-p no:hypothesispytest"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Coverage.from_plain(json.loads(data.read_text())).kernels[kernel]
