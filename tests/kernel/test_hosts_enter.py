"""Tests what a command sees in a root of ci/hosts, and what the machine sees of it. The root is busybox."""

import importlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOTS = Path(__file__).parents[2] / "ci/roots"


@pytest.fixture
def enter(tmp_path, monkeypatch):
    """Runs a script of busybox's shell in a root, with more binds, and returns its output."""
    monkeypatch.syspath_prepend(str(ROOTS))
    suites = importlib.import_module("suites")
    try:
        importlib.import_module("root").check_machine()
    except suites.CannotMakeRootsError as error:
        pytest.skip(str(error))
    root = tmp_path / "root"
    for folder in ("bin", "dev", "mnt", "proc", "run", "sys"):
        (root / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin")
    for name in ("cat", "id", "ls", "mkdir", "touch", "umount", "unshare"):
        (root / "bin" / name).symlink_to("busybox")

    def run(script, *binds):
        unshare = ["unshare", "--mount", "--propagation", "private", "--"]
        command = [*unshare, ROOTS / "enter", root, *binds, "--", "/bin/busybox", "sh", "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return run


def test_a_root_has_the_mounts_of_a_machine(enter):
    lines = enter("cat /proc/self/mounts").splitlines()
    mounts = {place: kind for _, place, kind, *_ in map(str.split, lines)}
    wanted = {
        "/proc": "proc",
        "/sys": "sysfs",
        "/sys/fs/cgroup": "cgroup2",
        "/sys/fs/bpf": "bpf",
        "/dev": "tmpfs",
    }
    assert {place: mounts.get(place) for place in wanted} == wanted
    tracing = os.path.ismount("/sys/kernel/tracing")
    assert ("/sys/kernel/tracing" in mounts) == tracing


def test_a_root_is_a_machine_of_its_own(enter, tmp_path):
    before = Path("/proc/self/mountinfo").read_text()
    script = "mkdir /sys/fs/bpf/own; touch /dev/own; ls / /sys/fs/bpf"
    assert "own" in enter(script)
    assert Path("/proc/self/mountinfo").read_text() == before
    assert not Path("/dev/own").exists()
    assert not Path("/sys/fs/bpf/own").exists()
    assert list((tmp_path / "root/dev").iterdir()) == []


def test_a_program_in_a_root_can_have_namespaces(enter):
    assert enter("unshare -U -r -n id -u") == "0\n"


def test_binds_are_seen_and_those_for_reading_stay_as_they_are(enter, tmp_path):
    (there := tmp_path / "there").mkdir()
    (file := tmp_path / "file").write_text("words")
    script = "cat /some/file; echo more >/some/file; echo x >/both/ways/new; echo x >/one/way/new; true"
    assert enter(script, f"{file}:/some/file:ro", f"{there}:/both/ways", f"{there}:/one/way:ro") == "words"
    assert file.read_text() == "words"
    assert [p.name for p in there.iterdir()] == ["new"]
