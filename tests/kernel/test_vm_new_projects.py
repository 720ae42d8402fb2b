"""Runs the tests of the projects that `bpfmaps new` makes, here and in a guest."""

import re
import sys

import pytest

from pytest_bpfmaps import paths
from pytest_bpfmaps.cli import main
from pytest_bpfmaps.commands.new import VARIANTS

CACHE = paths.cache_dir()  # read before pytester changes HOME


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_new_project_passes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    assert main(["new", "first", f"--{kind}"]) == 0
    monkeypatch.chdir(pytester.path / "first")
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:hypothesispytest"]
    result = pytester.run(*command, "--bpf-kernel=host,6.1", "--bpf-vm-timeout=120")
    assert result.ret == 0
    in_guest = re.findall(r"(?:\[|-)6\.1\] (\w+)", result.stdout.str())
    assert in_guest == ["PASSED"] * {"tracing": 2, "xdp": 3, "agent": 2}[kind]
