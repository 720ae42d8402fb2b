"""Tests the reader of /proc/PID/maps with files that this process has mapped."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from pytest_bpfmaps.elf.process_mappings import DELETED, Mapping, mappings_of


def mapping_of(path: str) -> Mapping:
    (found,) = [m for m in mappings_of() if m.path == path]
    return found


def test_a_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a name with spaces, \udcff too"
    path.write_bytes(bytes(4 * mmap.PAGESIZE))
    with path.open("rb") as file:
        rights = mmap.PROT_READ | mmap.PROT_EXEC
        memory = mmap.mmap(file.fileno(), 2 * mmap.PAGESIZE, mmap.MAP_PRIVATE, rights, offset=mmap.PAGESIZE)
    with memory:
        mapping = mapping_of(str(path))
        assert mapping.end - mapping.start == 2 * mmap.PAGESIZE
        assert (mapping.rights, mapping.offset, mapping.inode) == ("r-xp", mmap.PAGESIZE, path.stat().st_ino)
        assert mapping.is_file
        assert mapping.runs
        path.unlink()
        assert mapping_of(f"{path}{DELETED}").start == mapping.start


def test_memory_without_a_file() -> None:
    stack = mapping_of("[stack]")
    assert not stack.is_file
    assert not stack.runs
    assert stack.inode == stack.offset == 0


def test_a_process_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        mappings_of((1 << 22) + 1)  # larger than kernel.pid_max can ever be
