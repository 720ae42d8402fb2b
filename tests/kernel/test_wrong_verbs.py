"""Tests calls of methods that only other maps have. The message names those maps, and the right method."""

import pytest

CODE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8);
    __type(key, __u32);
    __type(value, __u32);
} counts SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_QUEUE);
    __uint(max_entries, 8);
    __type(value, __u32);
} jobs SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
} events SEC(".maps");
SEC("xdp") int look(struct xdp_md *ctx)
{
    __u32 key = 1, *value = bpf_map_lookup_elem(&counts, &key);

    bpf_map_push_elem(&jobs, &key, BPF_ANY);
    bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &key, sizeof(key));
    return value ? XDP_PASS : XDP_DROP;
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def maps(bpf):
    return bpf.load(code=CODE).maps


@pytest.mark.parametrize(
    ("name", "verb", "said"),
    [
        (
            "counts",
            "capture",
            "it is of type hash; maps of type perf_event_array, ringbuf have that",
        ),
        ("counts", "push", "it is of type hash; maps of type bloom_filter, queue, stack have that"),
        ("events", "items", "it is of type perf_event_array; maps of type array, array_of_maps, "),
        ("jobs", "to_numpy", "it is of type queue; maps of type "),
    ],
)
def test_of_other_maps(maps, name, verb, said):
    with pytest.raises(AttributeError) as caught:
        getattr(maps[name], verb)
    assert f"no '{verb}' in map " in str(caught.value)
    assert said in str(caught.value)
    types = str(caught.value).partition("maps of type ")[2].partition(" have that")[0].split(", ")
    assert types[6:] == (["…"] if verb in ("items", "to_numpy") else [])
    listed = str(caught.value).partition("use one of these: ")[2].split(", ")
    assert {"close", "fd", "type", "lookup_elem"} <= set(listed)
    assert all(hasattr(maps[name], each) for each in listed)
    assert not hasattr(maps[name], verb)


def test_misspelt(maps):
    with pytest.raises(AttributeError, match=r"no 'snapshott' in map 'counts'.*\n.*did you mean 'snapshot'"):
        _ = maps.counts.snapshott
    assert not hasattr(maps.counts, "_no_such")


def test_an_attribute_that_raises_tells_its_own_reason(maps):
    fd = maps.counts.fd
    assert fd > 0

    class Odd(type(maps.counts)):
        @property
        def odd(self):
            raise AttributeError("a reason of its own")

    odd = Odd.__new__(Odd)
    with pytest.raises(AttributeError, match=r"^a reason of its own$"):
        _ = odd.odd
