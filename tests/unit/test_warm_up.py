"""Tests what a waiting guest does before its run comes: it leaves nothing, and ends when the run comes."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import os, sys
from pytest_bpfmaps.vm.guest import warm_up

warm_up.FOLDER = sys.argv[1]
read, write = os.pipe()
if sys.argv[2] == "comes":
    os.write(write, b"{}")
warm_up.warm_up(None, read)
assert os.listdir(sys.argv[1]) == []
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child is left")
"""


@pytest.mark.parametrize("run", ["comes", "does not come"])
def test_it_leaves_nothing(run: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-c", CODE, str(folder), run]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("no child is left\n", "")
