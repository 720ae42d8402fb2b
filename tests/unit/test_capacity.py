"""Tests how many guests run at a time."""

from __future__ import annotations

import os

import pytest

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.machine import capacity


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512 << 20), ("1G", 1 << 30), ("2048M", 2 << 30), ("1t", 1 << 40)]
)
def test_sizes_are_those_of_qemu(text: str, size: int) -> None:
    assert capacity.size(text) == size


@pytest.mark.parametrize("text", ["", "much", "0", "-1G", "1.5G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(
        VmError, match=r"cannot start guests with a memory of .*: it is no size\n  -> give a size"
    ):
        capacity.guests_at_once(0, text)


def test_processors_and_memory_limit_the_number() -> None:
    processors = len(os.sched_getaffinity(0))
    assert capacity.guests_at_once(0, "1M") == capacity.PER_CPU * processors
    half = capacity.free_memory() * 2 // 3 >> 20
    assert capacity.guests_at_once(0, f"{half}M") == 1
    assert capacity.guests_at_once(0, "1024T") == 1, "one, or none could run"
    assert capacity.guests_at_once(7, "1024T") == 7, "somebody knows better"
