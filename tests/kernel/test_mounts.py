"""Tests that tests are skipped when a file system is missing, and that the command in the message helps.

Each test runs pytest in a mount namespace without the file system.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

WITHOUT = """
for kind in {kinds}; do
    tac /proc/self/mountinfo | while read -r _ _ _ _ place rest; do
        case $rest in *" - $kind "*) umount -l "$place" ;; esac
    done
done
"""
CGROUP = "def test_it(bpf_cgroup): assert bpf_cgroup.pids == []"
TYPES = """
import pytest
@pytest.mark.bpf_requires("bpf_map_lookup_elem")
def test_it(bpf_kernel): pass
"""
CPUS = """
def test_it(bpf):
    with bpf.create_map("percpu_array", value="u64", max_entries=1) as m:
        assert m[0].sum() == 0
"""


def run_without(pytester, kinds, test, before=""):
    """Returns pytest's output for a test in a namespace without these file systems, after a command."""
    pytester.makepyfile(test)
    script = f'{WITHOUT.format(kinds=kinds)}\n{before}\nexec "$@"'
    command = [sys.executable, "-m", "pytest", "-p", "bpfmaps", "-p", "no:cacheprovider", "-rs"]
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.stderr.startswith("unshare:"):
        pytest.skip(f"no mounts of its own: {done.stderr.strip()}; run as root, in a root that is a mount")
    return done.stdout


@pytest.mark.parametrize(
    ("kinds", "test", "outcome", "pattern"),
    [
        (
            "cgroup2",
            CGROUP,
            "1 skipped",
            r"no cgroup v2 hierarchy is mounted.*?; (.*mount -t cgroup2 .*)",
        ),
        (
            "sysfs cgroup2 cgroup",
            CGROUP,
            "1 skipped",
            r"; (mount -t sysfs sysfs /sys && .*mount -t cgroup2 .*)",
        ),
        ("sysfs", TYPES, "1 skipped", r"lacks function bpf_map_lookup_elem: .*sysfs is not mounted; ([^;]*)"),
        ("sysfs", CPUS, "1 failed", r"cannot count the possible CPUs: sysfs is not mounted\n.*-> (.*)"),
    ],
)
def test_the_remedy_that_is_named_helps(pytester, kinds, test, outcome, pattern):
    printed = run_without(pytester, kinds, test)
    assert outcome in printed
    remedy = re.search(pattern, printed)
    assert remedy, printed
    assert "1 passed" in run_without(pytester, kinds, test, remedy[1])
