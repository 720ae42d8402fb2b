"""Tests what maps do when this process may open no more descriptors: they say so, and keep none."""

import contextlib
import errno
import gc
import os
import resource

import pytest

from pytest_bpfmaps import MapError, UnsupportedError
from pytest_bpfmaps.events.printk import PrintkLog
from pytest_bpfmaps.kernel.tracefs import no_tracefs, tracefs


@contextlib.contextmanager
def at_most(count):
    """Leaves room for so many more descriptors."""
    gc.collect()  # what waits for it would free descriptors meanwhile
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    taken = [os.open(os.devnull, os.O_RDONLY)]
    while taken[-1] <= highest + count:
        taken.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, limits[1]))
    for _ in range(count):
        os.close(taken.pop())
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in taken:
            os.close(fd)


def own():
    return sorted(os.listdir("/proc/self/fd"))


@pytest.fixture
def typed(bpf, load_code):
    """A map with types, which are in the kernel: to open it takes two descriptors, to read /proc a third."""
    return load_code("""
    struct value { __u32 a; __u64 b; };
    struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, 4);
        __type(key, __u32);
        __type(value, struct value);
    } typed_map SEC(".maps");
    """).maps.typed_map


@pytest.mark.parametrize("room", [0, 1])
def test_opening_a_map_by_its_id(bpf, typed, room):
    before = own()
    with at_most(room), pytest.raises(MapError) as refused:
        bpf.map_by_id(typed.id)
    assert refused.value.errno == errno.EMFILE
    assert own() == before
    assert bpf.map_by_id(typed.id) == {}


@pytest.mark.parametrize("room", [0, 1])
def test_opening_maps_by_name(bpf, typed, room):
    before = own()
    with at_most(room), pytest.raises(MapError) as refused:
        bpf.maps_by_name("typed_map")
    assert refused.value.errno == errno.EMFILE
    assert own() == before


def test_opening_a_pinned_map(bpf, typed):
    typed.pin("typed")
    before = own()
    with at_most(0), pytest.raises(MapError) as refused:
        bpf.pinned("typed")
    assert refused.value.errno == errno.EMFILE
    assert own() == before


def test_creating_a_map(bpf):
    before = own()
    with at_most(0), pytest.raises(MapError) as refused:
        bpf.create_map("hash", key=4, value=8, max_entries=1)
    assert refused.value.errno == errno.EMFILE
    assert own() == before


@pytest.mark.parametrize("given", [{"key": "u32", "value": "u64"}, {"key": 4, "value": 8}])
def test_maps_that_come_and_go_leave_none(bpf, given):
    bpf.create_map("hash", max_entries=1, **given).close()
    before = own()
    bpf.create_map("hash", max_entries=1, **given).close()
    with pytest.raises(MapError):
        bpf.create_map("hash", max_entries=0, **given)
    inner = {"type": "hash", "max_entries": 1, **given}
    bpf.create_map("array_of_maps", max_entries=1, inner=inner).close()
    assert own() == before


@pytest.mark.parametrize("room", [0, 1])
def test_opening_an_inner_map(bpf, load_code, room):
    outer = load_code("""
    struct inner {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, int);
    } one SEC(".maps");
    struct {
        __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
        __uint(max_entries, 1);
        __type(key, __u32);
        __array(values, struct inner);
    } outer SEC(".maps") = {.values = {&one}};
    """).maps.outer
    before = own()
    with at_most(room), pytest.raises(MapError) as refused:
        outer[0]
    assert refused.value.errno == errno.EMFILE
    assert own() == before
    assert outer[0] == [0]


def test_what_is_printed():
    root = tracefs()
    if root is None:
        pytest.skip(no_tracefs().why)
    before, descriptors = os.listdir(root / "instances"), own()
    with at_most(0), pytest.raises(UnsupportedError, match="cannot capture bpf_printk in") as refused:
        PrintkLog()
    assert refused.value.errno == errno.EMFILE
    assert os.listdir(root / "instances") == before
    assert own() == descriptors


def test_captures(bpf, load_code):
    ring = load_code("""
    struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
    """).maps.ring
    before = own()
    with at_most(0), pytest.raises(OSError, match="open files") as refused:
        ring.capture(bytes)
    assert refused.value.errno == errno.EMFILE
    assert own() == before
    with ring.capture(bytes) as records:
        assert records == []
