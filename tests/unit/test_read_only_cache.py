"""A cache on a file system that is read-only: it is named, before a guest starts."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = f"from pytest_bpfmaps.vm.boot.start import check; check('auto', '{platform.machine()}')"


def test_guests_want_a_cache_that_can_be_written_to(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o ro,mode=0700 none {tmp_path}"
    tried = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no mounts of its own: {tried.stderr}")
    command = f'{mount} && BPFMAPS_CACHE={tmp_path} exec "$0" -c "{CHECK}"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, sys.executable], capture_output=True, text=True, check=False
    )
    assert f"cannot start guests with the cache {tmp_path}: it can't be written to\n" in done.stderr
    assert "  -> make it writable, or set BPFMAPS_CACHE" in done.stderr
