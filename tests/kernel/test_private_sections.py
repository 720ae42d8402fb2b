"""Tests variables of sections that can't be mapped: statics, formats, and the kernel's fields."""

import json
import subprocess

import pytest
from installed import installed

from pytest_bpfmaps import MapError, NameLookupError, UnsupportedError

FRAME = bytes(64)
STATICS = """
static volatile __u64 seen;
static volatile __u32 limit = 40, step = 2;
static volatile const __u16 low = 3;
SEC("xdp") int count(struct xdp_md *ctx)
{
    seen += step;
    bpf_printk("seen %d of %d", seen, low);
    return seen < limit ? XDP_PASS : XDP_DROP;
}
"""
LOCKED = """
#define private(name) SEC(".data." #name) __hidden __attribute__((aligned(8)))
private(A) struct bpf_spin_lock lock;
private(A) __u64 counted;
private(A) __u32 other = 3;
SEC(".data.tunables") __u64 tunable = 5;
__u64 plain;
SEC("tc") int add(struct __sk_buff *skb)
{
    bpf_spin_lock(&lock);
    counted += tunable;
    bpf_spin_unlock(&lock);
    plain++;
    return 0;
}
"""
LISTED = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
extern void *bpf_obj_new_impl(__u64 type, void *meta) __ksym;
extern int bpf_list_push_front_impl(struct bpf_list_head *, struct bpf_list_node *, void *, __u64) __ksym;
#define private(name) SEC(".data." #name) __hidden __attribute__((aligned(8)))
struct listed_node { struct bpf_list_node node; int number; };
private(B) struct bpf_spin_lock lock;
private(B) struct bpf_list_head head __attribute__((btf_decl_tag("contains:listed_node:node")));
private(B) __u32 beside = 4;
SEC("tc") int look(struct __sk_buff *skb)
{
    struct listed_node *made = bpf_obj_new_impl(bpf_core_type_id_local(struct listed_node), 0);

    if (!made)
        return -1;
    bpf_spin_lock(&lock);
    bpf_list_push_front_impl(&head, &made->node, 0, 0);
    bpf_spin_unlock(&lock);
    return beside;
}
char LICENSE[] SEC("license") = "GPL";
"""


def by_bpftool(the_map):
    """Returns the variables of a section as bpftool shows them."""
    command = [installed("bpftool"), "-j", "map", "dump", "id", str(the_map.id)]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    (variables,) = shown[0]["formatted"]["value"].values()
    return {name: value for variable in variables for name, value in variable.items()}


class TestStatics:
    def test_read_and_set(self, load_code):
        obj = load_code(STATICS)
        assert obj.programs.count.run(FRAME).retval == 2
        assert (obj.globals.seen, obj.globals.limit, obj.globals.step, obj.globals.low) == (2, 40, 2, 3)
        obj.globals.step = 50
        assert obj.programs.count.run(FRAME).retval == 1
        assert (obj.globals.seen, obj.globals.limit, obj.globals.step) == (52, 40, 50)

    def test_set_before_the_load(self, load_code):
        obj = load_code(STATICS, globals={"seen": 7, "step": 1, "low": 9})
        obj.programs.count.run(FRAME)
        assert (obj.globals.seen, obj.globals.low) == (8, 9)

    def test_all_at_once(self, load_code):
        obj = load_code(STATICS)
        values = {name: obj.globals[name] for name in obj.globals}
        assert {"seen": 0, "limit": 40, "step": 2, "low": 3}.items() <= values.items()
        assert "seen %d of %d" in values.values()

    def test_constants_stay(self, load_code):
        obj = load_code(STATICS)
        with pytest.raises(MapError, match="which the kernel froze"):
            obj.globals.low = 4
        assert obj.globals.low == 3

    def test_as_bpftool_shows_them(self, load_code):
        obj = load_code(STATICS)
        obj.globals.seen = 1234567890123
        for section in (".bss", ".data"):
            shown = by_bpftool(obj.maps[section])
            assert shown == {name: obj.globals[name] for name in shown}

    def test_only_formats(self, load_code):
        obj = load_code('SEC("xdp") int say(struct xdp_md *ctx) { bpf_printk("hello"); return 2; }')
        assert obj.programs.say.run(FRAME).retval == 2
        assert [obj.globals[name] for name in obj.globals if "fmt" in name] == ["hello"]


@pytest.mark.bpf_requires(kfunc="bpf_list_push_front_impl")  # Linux 6.2 brought it, and locks in sections
class TestLocks:
    def test_read_and_set(self, load_code):
        obj = load_code(LOCKED)
        assert set(obj.globals) == {"counted", "other", "tunable", "plain"}
        obj.programs.add.run(FRAME)
        assert (obj.globals.counted, obj.globals.other, obj.globals.plain) == (5, 3, 1)
        obj.globals.tunable = 7
        obj.globals.counted = 100
        obj.programs.add.run(FRAME)
        assert (obj.globals.counted, obj.globals.other, obj.globals.plain) == (107, 3, 2)
        assert obj.maps[".data.A"][0]["counted"] == 107

    def test_set_before_the_load(self, load_code):
        obj = load_code(LOCKED, globals={"counted": 100, "tunable": 1})
        obj.programs.add.run(FRAME)
        assert obj.globals.counted == 101

    def test_the_lock_is_the_kernels(self, load_code):
        obj = load_code(LOCKED)
        with pytest.raises(
            NameLookupError, match=r"no global variable 'lock' .*only the kernel may read and write its type"
        ):
            _ = obj.globals.lock
        assert "lock" not in obj.globals


@pytest.mark.bpf_requires(kfunc="bpf_list_push_front_impl")
class TestLists:
    def test_reading(self, bpf):
        obj = bpf.load(code=LISTED)
        assert obj.programs.look.run(FRAME).retval == 4
        assert {name: obj.globals[name] for name in obj.globals} == {"beside": 4}

    def test_setting_would_free_what_is_in_the_list(self, bpf):
        obj = bpf.load(code=LISTED, globals={"beside": 5})
        with pytest.raises(UnsupportedError, match="frees what is in its bpf_list_head"):
            obj.globals.beside = 6
        assert obj.globals.beside == 5
