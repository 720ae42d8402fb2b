"""Runs the steps of action.yml, as GitHub's runner does; the packages are here already."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps import paths
from pytest_bpfmaps.cli import main

ROOT = Path(__file__).parents[2]
CACHE = paths.cache_dir()
yaml = pytest.importorskip("yaml", reason="PyYAML is missing: pip install pyyaml")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
WORKFLOW = ROOT / "pytest_bpfmaps/templates/common/github.yml"


def filled_in(text: str, inputs: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: inputs[found[1]], text)


def run(step: dict, inputs: dict[str, str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "BPFMAPS_CACHE": str(CACHE), "PATH": path}
    environment |= {name: filled_in(text, inputs) for name, text in step.get("env", {}).items()}
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        environment.pop(name, None)
    options = ["--noprofile", "--norc", "-e", "-o", "pipefail", "-c"]
    done = subprocess.run(
        ["bash", *options, step["run"]],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return f"{done.stdout}\nstatus {done.returncode}"


def named(name: str) -> dict:
    return next(step for step in ACTION["runs"]["steps"] if step.get("name") == name)


def test_the_test_step_runs_the_tests_in_a_guest(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "first", "--xdp"]) == 0
    arguments = '--bpf-kernel=6.1 --bpf-vm-timeout=120 -v -k "verdict and XDP_DROP"'
    inputs = {name: given["default"] for name, given in ACTION["inputs"].items()} | {"arguments": arguments}
    said = run(named("Test"), inputs, tmp_path / "first")
    assert "test_the_verdict[2000-XDP_DROP-6.1] PASSED" in said
    assert said.endswith("status 0")
    (tmp_path / "first/bpf/first.bpf.c").write_text("int")
    assert run(named("Test"), inputs, tmp_path / "first").endswith("status 1")  # the job fails


def test_a_kernel_that_is_not_there_fails_the_fetch(tmp_path) -> None:
    said = run(named("Fetch kernels"), {"kernels": "debian:no-such-release"}, tmp_path)
    assert "debian:no-such-release" in said
    assert not said.endswith("status 0")


def test_every_input_is_used_and_every_step_is_bash() -> None:
    text = (ROOT / "action.yml").read_text()
    for name in ACTION["inputs"]:
        assert f"${{{{ inputs.{name} }}}}" in text
    for step in ACTION["runs"]["steps"]:
        if "run" in step:
            assert step["shell"] == "bash"
            subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)


NEEDED = {"clang", "libbpf-dev", "qemu-system-x86", "busybox-static", "kmod", "debian-archive-keyring"}


@pytest.mark.parametrize("file", [ROOT / "action.yml", WORKFLOW], ids=["action", "new"])
def test_the_packages_are_those_that_the_plugin_needs(file) -> None:
    (listed,) = re.findall(r"--no-install-recommends (.*?)\n *sudo chmod", file.read_text(), re.DOTALL)
    packages = set(listed.replace("\\", "").split())
    lines = (ROOT / "ci/packages.txt").read_text().splitlines()
    known = {line.split()[0].rstrip("?") for line in lines if line}
    assert packages - known == {"python3-venv"}  # ci/setup adds it itself
    assert packages >= NEEDED
