"""Tests names that several linked sources have: which struct and which variable a name means."""

import subprocess

import pytest
from installed import installed

from pytest_bpfmaps import AmbiguousNameError, NameLookupError

A = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct event { __u32 kind; __u32 a; };
static volatile __u32 calls;
static volatile __u64 only_a = 7;
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ra SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } both SEC(".maps");
SEC("tc") int from_a(struct __sk_buff *skb)
{
    struct event e = { 1, 0xaaaa };

    calls += only_a;
    bpf_ringbuf_output(&both, &e, sizeof(e), 0);
    return bpf_ringbuf_output(&ra, &e, sizeof(e), 0);
}
struct event *ua __attribute__((unused));
char LICENSE[] SEC("license") = "GPL";
"""
B = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct event { __u64 stamp; __u32 kind; __u32 b; };
static volatile __u32 calls;
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } rb SEC(".maps");
extern struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } both SEC(".maps");
SEC("tc") int from_b(struct __sk_buff *skb)
{
    struct event *e;

    calls += 100;
    e = bpf_ringbuf_reserve(&both, sizeof(*e), 0);
    if (e) {
        e->stamp = 0x2222;
        bpf_ringbuf_submit(e, 0);
    }
    e = bpf_ringbuf_reserve(&rb, sizeof(*e), 0);
    if (!e)
        return 1;
    e->stamp = 0x1111;
    e->kind = 2;
    e->b = 0xbbbb;
    bpf_ringbuf_submit(e, 0);
    return 0;
}
struct event *ub __attribute__((unused));
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "a.bpf.c").write_text(A)
    (tmp_path / "b.bpf.c").write_text(B)
    return [tmp_path / "a.bpf.c", tmp_path / "b.bpf.c"]


@pytest.fixture(params=["linked here", "linked by bpftool"])
def obj(request, bpf, sources, tmp_path):
    if request.param == "linked here":
        return bpf.load(sources)
    bpftool = installed("bpftool")
    out = tmp_path / "linked.bpf.o"
    subprocess.run([bpftool, "gen", "object", out, *map(bpf.compile, sources)], check=True)
    return bpf.load(out)


def test_records_have_the_struct_of_their_source(obj):
    with obj.maps.ra.capture("event") as ra, obj.maps.rb.capture() as rb:
        assert obj.programs.from_a.run(bytes(64)).retval == 0
        assert obj.programs.from_b.run(bytes(64)).retval == 0
    assert ra == [{"kind": 1, "a": 0xAAAA}]
    assert rb == [{"stamp": 0x1111, "kind": 2, "b": 0xBBBB}]


def test_a_buffer_of_both_has_to_be_told(obj):
    with pytest.raises(
        NameLookupError, match=r"(?s)several structs are called 'event'.*kind, a\}.*stamp, kind, b"
    ):
        obj.maps.both.capture("event")

    with pytest.raises(AmbiguousNameError, match="several structs are called 'event'"):
        obj.maps.both.capture()


def test_it_is_told_by_the_source(bpf, sources):
    obj = bpf.load(sources)
    with pytest.raises(NameLookupError, match=r"capture\('a\.event'\)"):
        obj.maps.both.capture("event")
    with obj.maps.both.capture("a.event") as records:
        obj.programs.from_a.run(bytes(64))
    assert records == [{"kind": 1, "a": 0xAAAA}]
    with obj.maps.both.capture("b.event") as records:
        obj.programs.from_b.run(bytes(64))
    assert records[0].stamp == 0x2222
    with pytest.raises(NameLookupError, match="no struct 'evnt' in b"):
        obj.maps.both.capture("b.evnt")


def test_variables_are_each_sources_own(obj):
    assert {"a.calls", "b.calls", "only_a"} <= set(obj.globals)
    assert "calls" not in obj.globals
    for _ in range(2):
        obj.programs.from_a.run(bytes(64))
    obj.programs.from_b.run(bytes(64))
    assert (obj.globals["a.calls"], obj.globals["b.calls"], obj.globals.only_a) == (14, 100, 7)
    obj.globals["a.calls"] = 1000
    obj.programs.from_b.run(bytes(64))
    assert (obj.globals["a.calls"], obj.globals["b.calls"]) == (1000, 200)
    for ask in (lambda: obj.globals.calls, lambda: obj.globals["calls"]):
        with pytest.raises(NameLookupError, match=r"globals\['a\.calls'\] or globals\['b\.calls'\]"):
            ask()
    with pytest.raises(NameLookupError, match=r"globals\['a\.calls'\]"):
        obj.globals.calls = 1


def test_they_are_set_before_the_load(bpf, sources):
    obj = bpf.load(sources, globals={"b.calls": 5})
    obj.programs.from_b.run(bytes(64))
    assert (obj.globals["a.calls"], obj.globals["b.calls"]) == (0, 105)


def test_variables_of_functions_have_their_names(load_code):
    """clang gives a static variable x of a function f the name f.x."""
    obj = load_code(
        """
        SEC("xdp") int f(void *ctx) { static volatile int x = 1; return x; }
        SEC("xdp") int g(void *ctx) { static volatile int x = 2; return x; }
        """
    )
    assert (obj.globals["f.x"], obj.globals["g.x"]) == (1, 2)
    with pytest.raises(NameLookupError, match=r"globals\['f\.x'\] or globals\['g\.x'\]"):
        _ = obj.globals.x
