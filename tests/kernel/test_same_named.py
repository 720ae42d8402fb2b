"""Tests kernel functions that share a name: a program is attached to all of them, or an error says why not.

Each file of /proc in the list has its own function ``c_start``.
"""

from pathlib import Path

import pytest

from pytest_bpfmaps import AttachError, LoadError
from pytest_bpfmaps.kernel.duplicate_symbols import traceable_places
from pytest_bpfmaps.kernel.kallsyms import kernel_symbols

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
COUNT = 'long runs; SEC("SECTION") int count(void *ctx) { __sync_fetch_and_add(&runs, 1); return 0; }'
SHARED = "functions of this kernel have the name 'c_start'"


@pytest.fixture
def load(load_code):
    return lambda section: load_code(COUNT.replace("SECTION", section))


@pytest.fixture
def several():
    lines = Path("/proc/kallsyms").read_text().splitlines()
    addresses = {line.split()[0] for line in lines if line.split()[2] == "c_start"}
    assert len(addresses) > 1
    return len(addresses)


@pytest.mark.bpf_requires("kprobe.multi")
@pytest.mark.parametrize("pattern", ["c_start", "c_star?"])
def test_many_with_one_link(load, several, pattern):
    obj = load("kprobe.multi")
    for file in ("/proc/cpuinfo", "/proc/consoles"):
        before = obj.globals.runs
        Path(file).read_bytes()
        assert obj.globals.runs == before
        with obj.programs.count.attach(functions=pattern):
            Path(file).read_bytes()
        assert obj.globals.runs > before, file


def test_their_places(several):
    places = traceable_places(["c_start", "vfs_read"])
    names = [name for name, _ in places]
    assert names.count("vfs_read") == 1
    assert 1 < names.count("c_start") <= several
    for name, place in places:
        symbol = kernel_symbols().find([place])[0]
        assert (symbol.start, symbol.names[0]) == (place, name)


@pytest.mark.bpf_requires("kprobe.multi", "bpf_get_attach_cookie")
def test_their_cookies(load_code, several):
    obj = load_code(
        "__u64 cookie; "
        'SEC("kprobe.multi") int count(void *ctx) { cookie = bpf_get_attach_cookie(ctx); return 0; }'
    )
    with obj.programs.count.attach(functions="c_start", cookies=[47]):
        for file in ("/proc/cpuinfo", "/proc/consoles"):
            obj.globals.cookie = 0
            Path(file).read_bytes()
            assert obj.globals.cookie == 47


@pytest.mark.bpf_requires("kprobe.multi")
def test_a_name_of_a_list_means_one(load, several):
    with pytest.raises(AttachError, match=f"{several} {SHARED}\n.*function=.*offset="):
        load("kprobe.multi").programs.count.attach(functions=["vfs_read", "c_start"])


@pytest.mark.bpf_requires("kprobe/vfs_read")
@pytest.mark.parametrize("section", ["kprobe/c_start", "kretprobe/c_start"])
def test_a_kprobe(load, several, section):
    with pytest.raises(AttachError, match=f"{several} {SHARED}"):
        load(section).attach()


@pytest.mark.bpf_requires("fentry/vfs_read")
@pytest.mark.parametrize("section", ["fentry", "fexit", "fentry/vfs_read"])
def test_by_a_target_that_was_set(bpf, several, section):
    """Older kernels have BTF of such a function, and attach to the first one."""
    opened = bpf.open(code=HEAD + COUNT.replace("SECTION", section))
    with pytest.raises((LoadError, AttachError), match=f"{several} {SHARED}"):
        load_for_c_start(opened)


def load_for_c_start(opened):
    opened.programs.count.set_attach_target("c_start")
    with opened.load() as obj:
        obj.programs.count.attach()


@pytest.mark.bpf_requires("fentry/vfs_read")
def test_another_target_than_that_of_the_section(bpf, several):
    with bpf.open(code=HEAD + COUNT.replace("SECTION", "fentry/c_start")) as opened:
        opened.programs.count.set_attach_target("vfs_read")
        with opened.load() as obj, obj.programs.count.attach():
            Path("/proc/self/stat").read_bytes()
            assert obj.globals.runs > 0


@pytest.mark.bpf_requires("fentry/vfs_read")
@pytest.mark.parametrize("section", ["fentry/c_start", "fexit/c_start"])
def test_by_its_types(load, several, section):
    # later kernels have no BTF of such functions
    with pytest.raises((LoadError, AttachError), match=f"{several} {SHARED}"):
        load(section).attach()
