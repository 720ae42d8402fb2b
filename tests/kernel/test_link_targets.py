"""Tests targets of links that the kernel tells in part, or in a long text."""

from __future__ import annotations

import os
import shutil

import pytest

from pytest_bpfmaps import AttachError
from pytest_bpfmaps.elf.binaries import find_binary
from pytest_bpfmaps.kernel.held_objects import held_by
from pytest_bpfmaps.loaders.links import UNTOLD, describe_links

WATCH = 'SEC("{}") int watch(void *ctx) {{ return 0; }}'


@pytest.fixture
def library(tmp_path):
    """A library whose path is longer than 255 bytes."""
    folder = tmp_path.joinpath(*["d" * 100] * 3)
    folder.mkdir(parents=True)
    return shutil.copy(find_binary("libc"), folder / "libc.so.6")


@pytest.mark.bpf_requires("uprobe/x")
def test_a_uprobe_in_a_file_with_a_long_path(load_code, library):
    obj = load_code(WATCH.format("uprobe"))
    with obj.programs.watch.attach(binary=library, function="getloadavg") as link:
        events = [each for each in held_by(os.getpid()).perf if each.program_id == obj.programs.watch.id]
        assert [(each.kind, each.name, each.offset > 0) for each in events] == [
            ("uprobe", str(library), True)
        ]
        try:
            target = link.info.target
        except AttachError:
            return  # before Linux 5.15 it is a perf event, and not a link
        assert target in ({}, {"event": "uprobe", "path": str(library), "offset": events[0].offset})


@pytest.mark.bpf_requires("uprobe.multi/x")
def test_uprobes_in_a_file_with_a_long_path(load_code, library):
    obj = load_code(WATCH.format("uprobe.multi"))
    with obj.programs.watch.attach(binary=library, functions=["getloadavg", "getpid"]) as link:
        assert link.info.target == {"path": str(library), "count": 2}


@pytest.mark.bpf_requires("kprobe.multi/do_sys_openat2")
def test_a_number_of_functions_that_the_kernel_does_not_tell(load_code, bpf_kernel):
    obj = load_code(WATCH.format("kprobe.multi"))
    with obj.programs.watch.attach(functions=["do_sys_openat2", "security_file_open"]) as link:
        (described,) = describe_links([link.info], [], [], {}, {})
    told = bpf_kernel.version >= (6, 6)
    assert described.target == ("kprobe.multi/ 2 functions" if told else UNTOLD)
