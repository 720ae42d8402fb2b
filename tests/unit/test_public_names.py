"""Tests the names that users import: each is there, and is what mypy takes it for."""

import ast
import json
import subprocess
import sys
from pathlib import Path

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


ROOT = Path(__file__).parents[2]
LISTED = json.loads((ROOT / "docs/public-names.json").read_text())


def test_the_list_of_public_names_has_what_is_there() -> None:
    """A member that is new may be missing in the list until the release; one that goes may not."""
    assert sorted(LISTED) == sorted(pytest_bpfmaps.__all__), "run ci/public-names, and write a fragment"
    for name, facts in LISTED.items():
        found = getattr(pytest_bpfmaps, name)
        if facts["kind"] == "constant":
            assert found == facts["value"], name
            continue
        assert facts["is_also"] == [b.__name__ for b in found.__mro__ if b.__module__ == "builtins"][:-1]
        for member, kind in facts["members"].items():
            if kind == "method":
                assert callable(getattr(found, member)), f"{name}.{member}"


def test_editors_see_the_same_names_as_a_run() -> None:
    tree = ast.parse(Path(pytest_bpfmaps.__file__).read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pytest_bpfmaps.")
        for alias in node.names
    }
    assert imported - {"map_flags", "return_values"} >= set(pytest_bpfmaps.__all__)


def test_mypy_sees_the_same_members_as_a_run(tmp_path, mypy_cache) -> None:
    lines = ["import pytest_bpfmaps as p", ""]
    for name, facts in LISTED.items():
        lines += [
            f"def use_{name}(it: p.{name}) -> None:" if facts["kind"] == "class" else f"print(p.{name})"
        ]
        lines += [f"    print(it.{member})" for member in facts.get("members", {})]
        lines += ["    print(it)"] * (facts["kind"] == "class")
    (tmp_path / "test_user.py").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "mypy", f"--cache-dir={mypy_cache}", "test_user.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.startswith("Success"), done.stdout
