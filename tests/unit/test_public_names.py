"""Tests the names that users import: each is there, and is what mypy takes it for."""

import subprocess
import sys

import pytest

import pytest_bpfmaps

USER = """
from pytest_bpfmaps import Bpf, Capture, Cgroup, LoadedObject, NetNs, NetNsFactory, ProcessFactory, RunResult


def test_it(bpf: Bpf, bpf_netns: NetNsFactory, bpf_process: ProcessFactory, bpf_cgroup: Cgroup) -> None:
    loaded: LoadedObject = bpf.load("x.bpf.c")
    result: RunResult = loaded.programs.x.run(b"")
    near: NetNs = bpf_netns("near")
    print(result.retval + 1, near.name, Capture, {more})
"""


@pytest.mark.parametrize("name", pytest_bpfmaps.__all__)
def test_each_public_name_is_there(name: str) -> None:
    found = getattr(pytest_bpfmaps, name)
    assert isinstance(found, int) or found.__module__.startswith("pytest_bpfmaps.")


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Bfp'"):
        _ = pytest_bpfmaps.Bfp


def test_importing_the_package_imports_no_type() -> None:
    program = "import sys, pytest_bpfmaps; print('pytest_bpfmaps.harness' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("more", "error"), [("1", ""), ("result.reval", '"RunResult" has no attribute "reval"')]
)
def test_mypy_knows_them(tmp_path, mypy_cache, more: str, error: str) -> None:
    (tmp_path / "test_user.py").write_text(USER.replace("{more}", more))
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(mypy_cache),
        "test_user.py",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert error in done.stdout
    assert (done.returncode == 0) == (not error)
