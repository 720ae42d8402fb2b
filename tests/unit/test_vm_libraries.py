"""Tests which parts of libraries a guest can give up, by a process's own memory."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps.vm.guest.library_pages import MappedPart, mapped_files, read_again


def parts_of(name: str) -> list[MappedPart]:
    return [one for one in mapped_files() if name in Path(one.path).name]


def test_the_code_of_a_library_can_be_had_again_and_its_data_can_not() -> None:
    libc = parts_of("libc.so")
    code = [one for one in libc if one.is_library_code()]
    assert code
    assert [one.path for one in code if not one.is_as_in_the_file()] == []
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


@pytest.mark.skipif("os.geteuid() != 0", reason="only root may read all of /proc/PID/pagemap")
def test_a_page_that_was_copied_is_not_read_again(tmp_path: Path) -> None:
    path, size = tmp_path / "file", 4 * mmap.PAGESIZE
    path.write_bytes(b"x" * size)
    program = (
        "import mmap, os, sys\n"
        "file = os.open(sys.argv[1], os.O_RDWR)\n"
        "memory = mmap.mmap(file, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)\n"
        "memory[mmap.PAGESIZE] = memory[2 * mmap.PAGESIZE]\n"
        "print(flush=True); input(); print(memory[mmap.PAGESIZE:][:1], memory[0:1], flush=True)"
    )
    command, pipe = [sys.executable, "-c", program, str(path)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        read = read_again(process.pid)[str(path)]
        assert read == {0, 2 * mmap.PAGESIZE, 3 * mmap.PAGESIZE}
        with path.open("r+b") as file:
            file.seek(mmap.PAGESIZE)
            file.write(bytes(mmap.PAGESIZE))
        assert process.communicate("\n")[0] == "b'x' b'x'\n"
