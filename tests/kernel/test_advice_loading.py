"""Tests loads and attachments that need more: the message says what, and it works with that."""

import re

import pytest

from pytest_bpfmaps import AttachError, LoadError, VerifierError

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
char LICENSE[] SEC("license") = "GPL";
"""
SIZED = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, __u64); } received SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); } sent SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __type(key, __u32); __type(value, __u32); }
    events SEC(".maps");
SEC("xdp") int prog(struct xdp_md *ctx)
{
    __u32 key = 0;
    bpf_perf_event_output(ctx, &events, 0, &key, 4);
    return bpf_map_lookup_elem(&received, &key) && bpf_map_lookup_elem(&sent, &key);
}
"""


def test_maps_whose_size_is_left_to_the_loader(bpf):
    with pytest.raises(LoadError) as error:
        bpf.load(code=HEAD + SIZED)
    sizes = re.search(r"max_entries=(\{.*?\})\)", error.value.fix)[1]
    assert sizes == "{'received': 1024, 'sent': 1024}"
    obj = bpf.load(code=HEAD + SIZED, max_entries={"received": 1024, "sent": 1024})
    assert obj.maps.received.max_entries == 1024


LEFT_OUT = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); }
    seen SEC(".maps");
const volatile bool with_seen = true;
SEC("xdp") int prog(struct xdp_md *ctx)
{
    __u32 key = 0;
    return %s bpf_map_lookup_elem(&seen, &key) ? 1 : 2;
}
SEC("xdp") int other(struct xdp_md *ctx) { return 2; }
"""


def test_a_program_that_uses_a_map_that_is_left_out(bpf):
    left_out = {"seen": {"autocreate": False}}
    with pytest.raises(VerifierError, match=r"uses the map 'seen', which the load leaves out") as error:
        bpf.load(code=HEAD + LEFT_OUT % "", maps=left_out)
    assert "with_seen;" in error.value.fix
    assert 'programs=["NAME"]' in error.value.fix
    guarded = bpf.load(code=HEAD + LEFT_OUT % "with_seen &&", maps=left_out, globals={"with_seen": False})
    assert guarded.programs.prog.run(bytes(64)).retval == 2
    obj = bpf.load(code=HEAD + LEFT_OUT % "", maps=left_out, programs=["other"])
    assert obj.programs.other.run(bytes(64)).retval == 2


REPLACED = """
__attribute__((noinline)) int verdict(struct xdp_md *ctx) { volatile int r = 2; return r; }
SEC("xdp") int base(struct xdp_md *ctx) { return verdict(ctx); }
"""


@pytest.mark.bpf_requires("ext")
@pytest.mark.parametrize("section", ["freplace/verdict", "freplace"])
def test_a_replacement_without_a_target(bpf, section):
    code = f'{HEAD}SEC("{section}") int patched(struct xdp_md *ctx) {{ return 1; }}'
    with pytest.raises(LoadError, match=r"set_attach_target\(.FUNCTION., ?.*|second argument"):
        bpf.load(code=code)
    base = bpf.load(code=HEAD + REPLACED).programs.base
    opened = bpf.open(code=code)
    opened.programs.patched.set_attach_target("verdict", base)
    opened.load().close()


@pytest.mark.bpf_requires("fentry")
def test_a_tracing_program_without_a_function(bpf):
    code = HEAD + 'SEC("SECTION") int prog(void *ctx) { return 0; }'
    with pytest.raises(LoadError, match="section does not name the function or hook"):
        bpf.load(code=code.replace("SECTION", "fentry"))
    opened = bpf.open(code=code.replace("SECTION", "fentry"))
    opened.programs.prog.set_attach_target("vfs_read")
    opened.load().close()
    bpf.load(code=code.replace("SECTION", "fentry/vfs_read"))


TWO = """
SEC("fentry/function_of_nobody") int absent(void *ctx) { return 0; }
SEC("xdp") int there(struct xdp_md *ctx) { return 2; }
"""


def test_a_program_whose_function_is_missing_can_be_left_out(bpf):
    with pytest.raises(LoadError, match=r"or leave it out: bpf\.load\(…, programs=\['there'\]\)"):
        bpf.load(code=HEAD + TWO)
    bpf.load(code=HEAD + TWO, programs=["there"])


SETTING = """
extern int CONFIG_HZZ __kconfig WEAK;
SEC("xdp") int prog(struct xdp_md *ctx) { return CONFIG_HZZ; }
"""


def test_a_setting_that_no_kernel_has(bpf):
    with pytest.raises(LoadError, match=r"needs CONFIG_HZZ(.*\n)*.*:\d+: extern int CONFIG_HZZ"):
        bpf.load(code=HEAD + SETTING.replace("WEAK", ""))
    bpf.load(code=HEAD + SETTING.replace("WEAK", "__weak"))


OWN = """
struct mine { int a; } ATTRIBUTE;
SEC("tracepoint") int prog(void *ctx) { struct mine *mine = ctx; return READ(mine, a) & 0; }
"""


def test_a_struct_of_the_programs_own(bpf):
    core = OWN.replace("ATTRIBUTE", "__attribute__((preserve_access_index))")
    with pytest.raises(VerifierError, match=r"does not have struct mine(.*\n)*.*BPF_PROBE_READ\(\)"):
        bpf.load(code=HEAD + core.replace("READ", "BPF_CORE_READ"))
    bpf.load(code=HEAD + OWN.replace("ATTRIBUTE", "").replace("READ", "BPF_PROBE_READ"))


@pytest.mark.parametrize(
    ("section", "way"),
    [
        ("kprobe", "attach(function="),
        ("kprobe.multi", "attach(functions="),
        ("uretprobe", "attach(binary="),
        ("tracepoint", "attach(category="),
        ("raw_tp", "attach(tracepoint="),
        ("perf_event", "attach(perf_event="),
        ("tc", "attach(interface="),
        ("cgroup_skb/ingress", "attach(cgroup="),
        ("sk_lookup", "attach(netns="),
        ("socket", "attach(socket="),
        ("sk_msg", "attach(map="),
        ("lwt_in", "ip route add"),
    ],
)
def test_each_type_names_its_own_target(bpf, bpf_kernel, section, way):
    if section == "kprobe.multi" and not bpf_kernel.has(section):
        pytest.skip("this kernel has no kprobe.multi")
    program = bpf.load(code=f'{HEAD}SEC("{section}") int prog(void *ctx) {{ return 0; }}').programs.prog
    with pytest.raises(AttachError, match=f"the section '{section}' names no target") as error:
        program.attach()
    assert way in error.value.fix


def test_targets_that_are_there_are_attached_as_the_message_says(bpf, bpf_netns):
    program = bpf.load(code=HEAD + 'SEC("xdp") int prog(void *ctx) { return 2; }').programs.prog
    with pytest.raises(AttachError) as error:
        program.attach()
    assert 'attach(interface="veth0")' in error.value.fix
    program.attach(interface="lo", mode="skb").detach()


@pytest.mark.bpf_requires("uprobe")
@pytest.mark.parametrize("section", ["uprobe/malloc", "uretprobe/malloc"])
def test_a_probe_without_a_binary(bpf, section):
    program = bpf.load(code=f'{HEAD}SEC("{section}") int prog(void *ctx) {{ return 0; }}').programs.prog
    with pytest.raises(
        AttachError, match=r"names a function but no binary(.*\n)*.*function=.malloc."
    ) as error:
        program.attach()
    assert f"{section.partition('/')[0]}//usr/bin/PROGRAM:malloc" in error.value.fix
    program.attach(binary="libc", function="malloc").detach()


ELEMENTS = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }
    m SEC(".maps");
SEC("iter/bpf_map_elem") int prog(struct bpf_iter__bpf_map_elem *ctx) { return 0; }
"""


@pytest.mark.bpf_requires("iter/bpf_map_elem")
def test_an_iterator_without_a_map(bpf):
    obj = bpf.load(code=HEAD + ELEMENTS)
    with pytest.raises(AttachError, match=r"elements of a map, and no map is given(.*\n)*.*attach\(map="):
        obj.programs.prog.attach()
    obj.programs.prog.attach(map=obj.maps.m).detach()


def test_an_object_with_types_is_not_said_to_lack_them(bpf):
    """A program in a section for maps is not the fault of the compilation."""
    with pytest.raises(LoadError, match="cannot open") as error:
        bpf.open(code=HEAD + 'SEC("maps") int prog(void *ctx) { return 0; }')
    assert "clang -g" not in (error.value.fix or "")
    bpf.open(code=HEAD + 'SEC("xdp") int prog(void *ctx) { return 0; }')
