"""Counts the CPUs of this machine: those that are online, and those that are possible."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.kernel.mounts import has_sysfs, how_to_mount
from pytest_bpfmaps.libbpf import check, lib

ONLINE = Path("/sys/devices/system/cpu/online")
"""This file has the numbers of the CPUs that are online, as text: ``0-3,6``."""


@cache
def possible_cpus() -> int:
    """Returns how many CPUs this kernel could ever have: the length of every per-CPU value."""
    number = lib.libbpf_num_possible_cpus()
    parts = (
        {} if number >= 0 or has_sysfs() else {"why": "sysfs is not mounted", "fix": how_to_mount("sysfs")}
    )
    return check(number, MapError, "cannot count the possible CPUs", **parts)


def online_cpus() -> list[int]:
    """Returns the numbers of the CPUs that are online."""
    found: list[int] = []
    for part in ONLINE.read_text().strip().split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
