"""Read one map while the program counts in another one, with an array of maps."""

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "array_of_maps")


def test_what_is_read_does_not_change(bpf):
    meter = bpf.load("generations.bpf.c")
    count, generations = meter.programs.count_sizes, meter.maps.generations
    for size in (60, 60, 100):
        count.run(bytes(size))
    meter.globals.current = 1
    count.run(bytes(60))

    assert generations == {0: {60: 2, 100: 1}, 1: {60: 1}}
    assert meter.maps.even == {60: 2, 100: 1}
    generations[0].clear()
    assert generations[0] == {}


def test_a_generation_is_replaced_as_a_whole(bpf):
    meter = bpf.load("generations.bpf.c")
    meter.maps.generations[0] = bpf.create_map("hash", key="u32", value="u64", max_entries=1024)
    meter.programs.count_sizes.run(bytes(60))

    assert meter.maps.generations[0] == {60: 1}
    assert meter.maps.even == {}
