"""What of libraries a guest can give up, told from a process's own memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from pytest_bpfmaps.vm.libraries import Mapping, mapped_files


def parts_of(name: str) -> list[Mapping]:
    return [one for one in mapped_files() if name in Path(one.path).name]


def test_the_code_of_a_library_can_be_had_again_and_its_data_can_not() -> None:
    libc = parts_of("libc.so")
    code = [one for one in libc if one.is_library_code()]
    assert code
    assert all(one.is_as_in_the_file() for one in code)
    assert all(len(one.pages()) * mmap.PAGESIZE == one.end - one.start for one in libc)
    changed = [one for one in libc if one.own]
    assert changed
    assert not any(one.is_as_in_the_file() for one in changed)


def test_what_has_no_path_is_not_among_them() -> None:
    """libffi's trampolines may be such memory."""
    fd = os.memfd_create("trampolines")
    os.ftruncate(fd, 1 << 20)
    with mmap.mmap(fd, 1 << 20, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC) as memory:
        assert memory[0] == 0
        assert parts_of("trampolines") == []
    os.close(fd)
