"""Tests how ci/hosts chooses releases and versions, what it takes from this machine, and its table."""

import importlib
import platform
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POLICY = """\
libbpf1:
  Installed: 1:1.1.2-0+deb12u1
  Candidate: 1:1.1.2-0+deb12u1
  Version table:
     1:1.4.6-1~bpo12+1 100
        100 http://mirror/debian bookworm-backports/main amd64 Packages
 *** 1:1.1.2-0+deb12u1 500
        500 http://mirror/debian bookworm/main amd64 Packages
        100 /var/lib/dpkg/status
libbpf-dev:
  Installed: (none)
  Candidate: 1:1.1.2-0+deb12u1
  Version table:
     1:1.4.6-1~bpo12+1 100
        100 http://mirror/debian bookworm-backports/main amd64 Packages
     1:1.1.2-0+deb12u1 500
        500 http://mirror/debian bookworm/main amd64 Packages
"""


@pytest.fixture(scope="module")
def hosts():
    """Returns the modules of ci/roots, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "ci/roots"))
        yield importlib.import_module


@pytest.mark.parametrize(
    ("here", "other"),
    [("bookworm", "trixie"), ("trixie", "bookworm"), ("sid", "trixie"), ("noble", "trixie"), ("", "trixie")],
)
def test_the_other_release_is_never_the_one_that_runs(hosts, here, other):
    assert hosts("suites").other_suite(here) == other


def test_an_index_that_is_too_old_is_told_from_other_failures(hosts):
    said = (
        "Get:1 http://mirror/debian sid InRelease [193 kB]\n"
        "E: Release file for http://mirror/debian/dists/sid/InRelease is expired (invalid since 21d 19h). "
        "Updates for this repository will not be applied.\n"
    )
    index = "http://mirror/debian/dists/sid/InRelease"
    assert hosts("suites").expired(said) == (index, "expired (invalid since 21d 19h)")
    assert hosts("suites").expired("E: The repository 'http://mirror sid' is not signed.") is None


def test_of_apts_settings_a_root_gets_those_of_the_network(hosts):
    dump = """\
APT::Architecture "amd64";
Acquire::AllowInsecureRepositories "1";
Acquire::Check-Valid-Until "false";
Acquire::http "";
Acquire::http::Proxy "http://proxy:3128/";
Acquire::https::mirror.example::CaInfo "/etc/ssl/own.pem";
Acquire::http::Proxy-Auto-Detect "/usr/bin/ask";
Acquire::Retries "3";
"""
    assert hosts("suites").network_options(dump) == [
        'Acquire::Check-Valid-Until "false";',
        'Acquire::http::Proxy "http://proxy:3128/";',
        'Acquire::https::mirror.example::CaInfo "/etc/ssl/own.pem";',
        'Acquire::Retries "3";',
    ]


def test_pips_settings_name_the_folders_that_a_root_sees(hosts, tmp_path):
    (wheels := tmp_path / "wheels").mkdir()
    (tmp_path / "index/simple").mkdir(parents=True)
    (constraints := tmp_path / "constraints.txt").touch()
    conf = tmp_path / "pip.conf"
    conf.write_text(
        f"[global]\nfind-links = {wheels} https://host/wheels\n    /is/not/there\n"
        f"extra-index-url = file://{tmp_path}/index/simple\n[install]\nconstraint = {constraints}\n"
    )
    machine = hosts("machine")
    assert machine.local_paths(machine.pip_values([conf])) == [constraints, tmp_path / "index", wheels]


def test_variables_of_the_network_are_taken_and_no_others(hosts):
    taken = {"PIP_INDEX_URL": "x", "https_proxy": "p", "NO_PROXY": "localhost", "SSL_CERT_FILE": "/a"}
    left = {
        "PIP_CACHE_DIR": "/a",
        "HOME": "/root",
        "PYTEST_ADDOPTS": "-x",
        "BPFMAPS_CACHE": "/a",
        "PIPX_HOME": "/a",
    }
    assert hosts("machine").variables({**taken, **left}) == taken


@pytest.mark.parametrize(
    ("job", "chosen"),
    [
        ("libbpf-1.1", ["libbpf1=1:1.1.2-0+deb12u1", "libbpf-dev=1:1.1.2-0+deb12u1"]),
        ("libbpf-1.4", ["libbpf1=1:1.4.6-1~bpo12+1", "libbpf-dev=1:1.4.6-1~bpo12+1"]),
        ("libbpf-1.3", None),
        ("clang-14", None),
    ],
)
def test_a_job_installs_its_version_or_nothing(hosts, job, chosen):
    jobs = hosts("jobs")
    assert jobs.choice(jobs.JOBS[job], POLICY) == chosen


def test_version_1_1_is_not_1_10(hosts):
    jobs = hosts("jobs")
    assert jobs.choice(jobs.JOBS["libbpf-1.1"], POLICY.replace("1:1.1.2", "1:1.10.2")) is None


def test_the_last_release_of_a_version_is_taken(hosts):
    tags = ["v1.4.0", "v1.4.9", "v1.4.10", "v1.40.1", "v1.5.0", "v1.4.11_netdata", "snapshot"]
    assert hosts("jobs").newest_tag(tags, "1.4") == "v1.4.10"
    assert hosts("jobs").newest_tag(tags, "1.6") is None


def test_every_supported_version_has_a_job(hosts):
    names = set(hosts("jobs").JOBS)
    assert {f"clang-{n}" for n in range(14, 22)} <= names
    assert {f"libbpf-1.{n}" for n in range(1, 8)} <= names
    assert {f"python-3.{n}" for n in range(11, 15)} <= names
    assert {"qemu-7.2", "qemu-8.2", "qemu-10.0", "qemu-11.1"} <= names


def test_the_tests_of_all_stages_are_added_up(hosts):
    said = (
        "==> making .venv\n\n==> pytest tests/unit\n====== 10 passed, 2 skipped in 3.14s ======\n"
        "==> pytest tests/kernel\n=== 1 failed, 20 passed, 2 errors in 68.25s (0:01:08) ===\n"
    )
    results = hosts("results")
    assert str(results.outcome(0, 1.0, said)) == "30 passed, 1 failed, 2 error, 2 skipped"
    assert str(results.outcome(1, 1.0, said)).endswith("2 skipped: pytest tests/kernel")
    many = " ".join(f"tests/kernel/test_{n}.py" for n in range(30))
    stage = results.outcome(1, 1.0, f"{said}==> pytest {many}\n").stage
    assert stage.startswith("pytest tests/kernel/test_0.py")
    assert len(stage) <= 100
    assert stage.endswith(" …")


def test_what_apt_refuses_is_said(hosts):
    said = "==> installing clang\nE: Unable to correct problems, you have held broken packages.\n"
    outcome = hosts("results").outcome(100, 1.0, said)
    assert "installing clang; apt: Unable to correct problems" in str(outcome)


def test_results_of_several_runs_make_one_table(hosts, tmp_path):
    results = hosts("results")
    stored = tmp_path / "results.json"
    versions = {"name": "Debian 13", "Python": "3.13", "libbpf": "1.5", "clang": "19", "QEMU": "10.0"}
    versions |= {"glibc": "2.41"}

    def run(name, date, commit, command, outcome):
        results.save(stored, results.Result(name, date, commit, dict(versions), {command: outcome}))

    passed = results.Outcome(0, 1.0, {"passed": 5, "skipped": 1})
    run("trixie", "2026-01-01", "aaa", "demo", passed)
    run("trixie", "2026-01-01", "aaa", "test", results.Outcome(1, 1.0, {"failed": 1}, "pytest tests/unit"))
    run("clang-17", "2026-01-02", "aaa", "tests", passed)
    text = results.table(results.load(stored).values())
    assert text.splitlines()[2:] == [
        "| Debian 13 | 3.13 | 1.5 | 19 | 10.0 | 2.41 | 5 passed, 1 skipped |"
        " **failed** (status 1): 1 failed: pytest tests/unit |  |",
        "| `clang-17` on Debian 13 | 3.13 | 1.5 | 19 | 10.0 | 2.41 |  |  | 5 passed, 1 skipped |",
        "",
        f"Printed by `ci/hosts` on 2026-01-01 to 2026-01-02, Linux {platform.release()}.",
    ]
    run(
        "trixie", "2026-01-03", "bbb", "demo", passed
    )  # the figures of an older commit say nothing about this one
    assert results.load(stored)["trixie"].outcomes.keys() == {"demo"}


def test_the_table_replaces_the_last_one_and_nothing_else(hosts, tmp_path):
    results = hosts("results")
    file = tmp_path / "README.md"
    first, second = results.MARKS
    file.write_text(f"before\n{first}\nold\n{second}\nafter\n")
    results.write_between_marks(file, "new")
    results.write_between_marks(file, "newer")
    assert file.read_text() == f"before\n{first}\nnewer\n{second}\nafter\n"
    file.write_text("no marks\n")
    with pytest.raises(ValueError, match="lacks the line"):
        results.write_between_marks(file, "new")


def test_the_readme_has_the_marks(hosts):
    text = (ROOT / "README.md").read_text()
    assert [text.count(mark) for mark in hosts("results").MARKS] == [1, 1]


def test_a_machine_that_cannot_make_roots_says_so():
    without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    can_drop = subprocess.run([*without, "true"], capture_output=True, check=False).returncode == 0
    command = [*(without if can_drop else []), str(ROOT / "ci/hosts"), "trixie"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 77
    assert done.stderr.startswith("ci/hosts: cannot make roots: ")
    assert done.stderr.count("\n") == 1
