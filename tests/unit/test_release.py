"""Tests what a release needs: a changelog out of fragments, and the steps of the workflow."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = SETTINGS["project"]["version"]
LATER, MADE_UP = "99.0.0", "A test wrote this fragment."
FRAGMENTS = sorted((ROOT / "changelog").rglob("*.md"))
yaml = pytest.importorskip("yaml", reason="PyYAML is missing: pip install pyyaml")
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())


def test_each_fragment_has_a_kind():
    for path in FRAGMENTS:
        assert re.fullmatch(r"[a-z0-9-]+\.(feature|bugfix|removal|doc)\.md", path.name), path


@pytest.fixture
def changelog(tmp_path):
    """Returns the changelog of a later release, which towncrier writes in a copy of the project."""
    pytest.importorskip("towncrier", reason="towncrier is missing: pip install towncrier")
    for name in ("pyproject.toml", "CHANGELOG.md", "ci/changelog.jinja"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "changelog", tmp_path / "changelog")
    made_up = tmp_path / "changelog/running/made-up.feature.md"
    made_up.parent.mkdir(exist_ok=True)  # a release leaves no fragments
    made_up.write_text(MADE_UP)
    package = tmp_path / "pytest_bpfmaps"
    package.mkdir()
    (package / "__init__.py").touch()
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    command = ["towncrier", "build", "--yes", "--version", LATER, "--date", "2026-01-31"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path / "CHANGELOG.md"


def test_the_notes_have_each_fragment(changelog):
    done = subprocess.run(
        [ROOT / "ci/release-notes", LATER, changelog], capture_output=True, text=True, check=True
    )
    notes = " ".join(done.stdout.split())
    assert MADE_UP in notes
    for path in FRAGMENTS:
        assert " ".join(path.read_text().split()) in notes, path
    assert not re.search(r"\(#[\w-]+\)", notes)  # a fragment's name is no number of an issue


def test_a_version_without_notes():
    command = [ROOT / "ci/release-notes", "9.9.9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "CHANGELOG.md has no section of 9.9.9\n  -> towncrier build --version 9.9.9" in done.stderr


@pytest.mark.parametrize(("tag", "status"), [(f"v{VERSION}", 0), (VERSION, 1), (f"v{VERSION}.1", 1)])
def test_the_tag_must_be_the_version(tag, status):
    (step,) = (step for step in WORKFLOW["jobs"]["build"]["steps"] if "tag" in step.get("name", ""))
    command = ["bash", "-e", "-o", "pipefail", "-c", step["run"]]
    environment = {**os.environ, "GITHUB_REF_NAME": tag}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert (f"the tag is {tag}, and" in done.stderr) == bool(status)


ADDRESS = SETTINGS["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]


@pytest.mark.parametrize("address", ["https://github.com/owner/name", "https://github.com/a/fork"])
def test_the_address_must_be_that_of_the_repository(tmp_path, address):
    (step,) = (step for step in WORKFLOW["jobs"]["build"]["steps"] if "address" in step.get("name", ""))
    text = (ROOT / "pyproject.toml").read_text()
    mine = "https://github.com/owner/name"
    (tmp_path / "pyproject.toml").write_text(
        text.replace(f'repository = "{ADDRESS}"', f'repository = "{mine}"')
    )
    server, _, name = address.partition(".com/")
    environment = {**os.environ, "GITHUB_SERVER_URL": f"{server}.com", "GITHUB_REPOSITORY": name}
    command = ["bash", "-e", "-o", "pipefail", "-c", step["run"]]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (address == mine), done.stderr
    assert done.stderr == (
        "" if address == mine else f'pyproject.toml has repository = "{mine}", and this is {address}\n'
    )


@pytest.mark.parametrize(("version", "why"), [("1.0", "give the version as X.Y.Z"), ("", "give the version")])
def test_no_release_of_a_bad_version(version, why):
    done = subprocess.run([ROOT / "ci/release", version], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert why in done.stderr


def test_only_the_job_that_uploads_may_ask_for_a_token():
    rights = {name: job.get("permissions", {}) for name, job in WORKFLOW["jobs"].items()}
    assert rights == {"build": {}, "publish": {"id-token": "write"}, "notes": {"contents": "write"}}
    assert WORKFLOW["permissions"] == {"contents": "read"}
