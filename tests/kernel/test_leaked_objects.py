"""Tests the report of the BPF objects that this process has open after a test."""

import os

import pytest

from pytest_bpfmaps.kernel import open_resources
from pytest_bpfmaps.maps.create import create_map
from pytest_bpfmaps.objects import OpenedObject

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 1);
    __type(key, int);
    __array(values, struct {
        __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, int);
    });
} outer SEC(".maps");
int seen;
SEC("xdp") int watch(struct xdp_md *ctx) { seen++; return XDP_PASS; }
"""


@pytest.fixture
def before():
    return open_resources.snapshot()


def test_an_object_and_its_link_until_they_are_closed(bpf, before, bpf_netns):
    opened = OpenedObject(bpf.compile(code=HEAD), name="left.bpf.o")
    with opened, opened.load() as loaded:
        link = loaded.programs.watch.attach(interface=bpf_netns().interface("lo"))
        there = open_resources.since(before)
        assert [leak.what for leak in there] == ["object left.bpf.o", "link of program 'watch' (xdp)"]
        assert all(leak.places[0][0] == __file__ for leak in there)
        link.close()
        assert [leak.what for leak in open_resources.since(before)] == ["object left.bpf.o"]
    assert open_resources.since(before) == []


def test_what_the_fixture_loaded_is_none(bpf, before):
    loaded = bpf.load(code=HEAD)
    loaded.maps.outer[0] = bpf.create_map("array", value="u32", max_entries=1)
    assert open_resources.since(before) == []


def test_what_the_fixture_opened_and_the_test_loaded_is_none(bpf, before, bpf_netns):
    loaded = bpf.open(code=HEAD).load()
    loaded.programs.watch.attach(interface=bpf_netns().interface("lo"))
    assert list(bpf.loaded) == [loaded]
    assert open_resources.since(before) == []
    bpf.close()
    assert not loaded.programs.watch.attached
    assert open_resources.since(before) == []


def test_a_map_that_was_looked_into_goes_with_its_last_reference(bpf, before):
    loaded = bpf.load(code=HEAD)
    loaded.maps.outer[0] = bpf.create_map("array", value="u32", max_entries=1)
    inner = loaded.maps.outer[0]
    assert len(open_resources.since(before)) == 1
    assert open_resources.since(before, {"fixture": [inner]}) == []
    del inner
    assert open_resources.since(before) == []


def test_a_link_s_pin_goes_with_the_fixture(bpf, before, bpf_netns):
    watch = bpf.load(code=HEAD).programs.watch
    watch.attach(interface=bpf_netns().interface("lo")).pin("link")
    assert (bpf.pin_root / "link").exists()
    assert open_resources.since(before) == []


def test_a_pin_that_nobody_removes(bpf, before):
    path = bpf.pin_root / "kept"
    with create_map(None, "array", key=4, value=8, max_entries=1, name="mine") as mine:
        mine.pin(path)
        assert [leak.what for leak in open_resources.since(before)] == [
            "map 'mine' (array)",
            f"pin {path} of map 'mine' (array)",
        ]
        mine.unpin()
    assert open_resources.since(before) == []


def test_duplicates_of_what_the_fixture_holds_are_told_from_those_of_others(bpf, before):
    with create_map(None, "array", key=4, value=8, max_entries=1) as mine:
        duplicate = os.dup(mine.fd)
    try:
        assert [leak.what.split(" (")[0] for leak in open_resources.since(before)] == [
            f"descriptor {duplicate} of a map"
        ]
    finally:
        os.close(duplicate)
