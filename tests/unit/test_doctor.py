"""Tests `bpfmaps doctor`, on this machine and on machines that lack something."""

import json
import os
import subprocess
import sys

import pytest

AREAS = ["compile", "load", "network", "trace", "vm", "kernels"]


def doctor(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "pytest_bpfmaps.cli", "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert not done.stderr, done.stderr
    return done


def checks(*arguments, **environment):
    answer = json.loads(doctor("--json", *arguments, **environment).stdout)
    return {(c["area"], c["name"]): c for c in answer["checks"]}, answer["able"]


def test_the_table_goes_by_area_and_every_lack_has_a_remedy():
    found, able = checks()
    order = [AREAS.index(area) for area, _ in found]
    assert order == sorted(order)
    assert all(c.get("remedy") for c in found.values() if c["state"] != "ok" and c["name"] != "acceleration")
    done = doctor()
    assert done.returncode == (0 if able else 1)
    assert ("BPF tests can run" in done.stdout) == able


def test_without_clang_it_says_how_to_install_it(tmp_path):
    found, able = checks(PATH=str(tmp_path), CLANG="")
    clang = found["compile", "clang"]
    assert (clang["state"], able) == ("missing", False)
    assert clang["remedy"].split()[-1] == "clang"
    assert found["vm", "busybox"]["state"] == "missing"
    assert doctor(PATH=str(tmp_path), CLANG="").returncode == 1


def test_a_clang_that_is_not_there(tmp_path):
    found, _ = checks("--clang", str(tmp_path / "clang"))
    assert found["compile", "clang"]["state"] == "missing"


def test_without_libbpf_it_says_how_to_install_it():
    found, able = checks(BPFMAPS_LIBBPF="/nonexistent/libbpf.so.1")
    assert (found["load", "libbpf"]["state"], able) == ("missing", False)
    assert "libbpf" in found["load", "libbpf"]["remedy"]


def test_an_empty_catalogue_says_how_to_fill_it(tmp_path):
    found, _ = checks(BPFMAPS_CACHE=str(tmp_path))
    assert found["kernels", "catalogue"]["remedy"] == "bpfmaps kernels fetch debian:bookworm"


@pytest.mark.skipif("os.geteuid() != 0", reason="only root can become somebody else")
def test_without_privileges():
    program = """
import os
from pytest_bpfmaps.doctor.host import kernel_checks
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for check in kernel_checks():
    print(check.name, check.state, check.found, check.remedy, sep="|")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (
        "privileges|limited|uid 65534, none of the capabilities for BPF|run as root or with CAP_BPF"
        in done.stdout
    )


@pytest.mark.parametrize(
    ("family", "command"),
    [("debian", "apt-get install clang"), ("fedora", "dnf install clang"), ("arch", "pacman -S clang")],
)
def test_the_command_is_this_distributions(monkeypatch, family, command):
    import platform

    from pytest_bpfmaps.doctor import packages

    packages._family.cache_clear()
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "x", "ID_LIKE": family})
    assert packages.install("clang") == command
    packages._family.cache_clear()
