"""Tests that the compiler, or opening an object, upgrades legacy definitions, ``SEC("maps")``."""

import errno
from pathlib import Path

import pytest

from pytest_bpfmaps import LoadError
from pytest_bpfmaps.compiler import legacy_maps
from pytest_bpfmaps.elf.editor import Elf

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
DEF = """
struct bpf_map_def {
    unsigned int type, key_size, value_size, max_entries, map_flags;
};
"""
LONG_DEF = """
struct bpf_map_def {
    unsigned int type, key_size, value_size, max_entries, map_flags, inner_map_idx, numa_node;
};
"""
ELF_DEF = """
struct bpf_elf_map {
    __u32 type, size_key, size_value, max_elem, flags, id, pinning, inner_id, inner_idx;
};
"""
COUNT = """
SEC("xdp") int count(struct xdp_md *ctx)
{
    __u32 key = 1;
    __u64 one = 1, *value = bpf_map_lookup_elem(&counts, &key);

    if (value)
        *value += 1;
    else
        bpf_map_update_elem(&counts, &key, &one, BPF_ANY);
    return XDP_PASS;
}
"""
COUNTS = """
struct bpf_map_def SEC("maps") counts = {
    .type = BPF_MAP_TYPE_HASH, .key_size = 4, .value_size = 8, .max_entries = 10,
    .map_flags = BPF_F_NO_PREALLOC,
};
"""
FRAME = bytes(64)
F_NO_PREALLOC = 1


def test_a_legacy_map_works_as_any_other(load_code):
    obj = load_code(DEF + COUNTS + COUNT)
    for _ in range(3):
        obj.programs.count.run(FRAME)
    counts = obj.maps.counts
    assert counts == {1: 3}
    assert (str(counts.type), counts.max_entries, counts.flags) == ("hash", 10, F_NO_PREALLOC)
    counts[7] = 8
    assert counts.snapshot() == {1: 3, 7: 8}


def test_it_can_be_resized_before_load(load_code):
    assert load_code(DEF + COUNTS + COUNT, max_entries={"counts": 99}).maps.counts.max_entries == 99


MANY = """
struct bpf_map_def SEC("maps") counts = {BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 3, 0};
static struct bpf_map_def SEC("maps") first_static = {BPF_MAP_TYPE_ARRAY, 4, 2, 4, 0};
static struct bpf_map_def SEC("maps") second_static = {BPF_MAP_TYPE_ARRAY, 4, 3, 5, 0};
struct bpf_map_def SEC("maps/other") named = {BPF_MAP_TYPE_LRU_HASH, 6, 1, 6, 0};
struct bpf_map_def SEC("maps") traces = {BPF_MAP_TYPE_STACK_TRACE, 4, 80, 7, 0};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 2);
    __type(key, int);
    __type(value, int);
} today SEC(".maps");
int variable = 5;

SEC("xdp") int touch(struct xdp_md *ctx)
{
    __u32 zero = 0;
    __u64 *value = bpf_map_lookup_elem(&counts, &zero);
    __u16 *narrow = bpf_map_lookup_elem(&first_static, &zero);
    char *odd = bpf_map_lookup_elem(&second_static, &zero), mac[6] = {1, 2, 3, 4, 5, 6};
    int *new = bpf_map_lookup_elem(&today, &zero);
    __u8 one = 1;

    if (!value || !narrow || !odd || !new)
        return XDP_ABORTED;
    *value = 1;
    *narrow = 2;
    odd[0] = 3;
    *new = variable++;
    bpf_map_update_elem(&named, mac, &one, BPF_ANY);
    return XDP_PASS;
}
"""


def test_several_maps_of_all_kinds_beside_new_ones(load_code):
    obj = load_code(DEF + MANY)
    assert obj.programs.touch.run(FRAME).retval == 2
    maps = obj.maps
    assert sorted(maps.names()) == ["counts", "first_static", "named", "second_static", "today", "traces"]
    assert maps.counts.sum()[0] == 1
    assert maps.first_static[0] == 2
    assert maps.second_static[0] == b"\3\0\0"  # no integer has three bytes
    assert maps.named == {bytes([1, 2, 3, 4, 5, 6]): 1}
    assert maps.today[0] == 5
    assert obj.globals.variable == 6
    assert str(maps.traces.type) == "stack_trace"
    assert maps.traces.value_size == 80


def test_annotated_types_are_taken(load_code):
    obj = load_code(
        DEF
        + """
        #define BPF_ANNOTATE_KV_PAIR(name, type_key, type_val)              \\
            struct ____btf_map_##name { type_key key; type_val value; };    \\
            struct ____btf_map_##name                                       \\
            __attribute__((section(".maps." #name), used)) ____btf_map_##name = {}
        struct flow { __u16 port; __u8 protocol; };
        enum verdict { DROP, LET_PASS };
        struct bpf_map_def SEC("maps") verdicts = {BPF_MAP_TYPE_HASH, sizeof(struct flow), 4, 8, 0};
        BPF_ANNOTATE_KV_PAIR(verdicts, struct flow, enum verdict);
        SEC("xdp") int judge(struct xdp_md *ctx)
        {
            struct flow flow = {.port = 80, .protocol = 6};
            enum verdict verdict = LET_PASS;
            bpf_map_update_elem(&verdicts, &flow, &verdict, BPF_ANY);
            return XDP_PASS;
        }
        """
    )
    obj.programs.judge.run(FRAME)
    ((flow, verdict),) = obj.maps.verdicts.items()
    assert flow == {"port": 80, "protocol": 6}
    assert verdict.name == "LET_PASS"


LOOK_INSIDE = """
SEC("xdp") int look(struct xdp_md *ctx)
{
    __u32 zero = 0, slot = 1, *value;
    void *inner = bpf_map_lookup_elem(&outer, &slot);

    if (!inner)
        return XDP_DROP;
    value = bpf_map_lookup_elem(inner, &zero);
    if (!value)
        return XDP_ABORTED;
    *value = 42;
    return XDP_PASS;
}
"""


def test_inner_map_index(load_code):
    obj = load_code(
        LONG_DEF
        + """
        struct bpf_map_def SEC("maps") unrelated = {BPF_MAP_TYPE_HASH, 8, 8, 1, 0};
        struct bpf_map_def SEC("maps") template = {BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0};
        struct bpf_map_def SEC("maps") outer = {
            .type = BPF_MAP_TYPE_ARRAY_OF_MAPS, .key_size = 4, .value_size = 4, .max_entries = 2,
            .inner_map_idx = 1,
        };
        """
        + LOOK_INSIDE
    )
    assert obj.programs.look.run(FRAME).retval == 1
    obj.maps.outer[1] = obj.maps.template
    assert obj.programs.look.run(FRAME).retval == 2
    assert obj.maps.template[0] == 42


def test_iproute2_definitions_with_an_inner_map_in_its_slot(load_code):
    obj = load_code(
        ELF_DEF
        + """
        struct bpf_elf_map SEC("maps") inner = {
            .type = BPF_MAP_TYPE_ARRAY, .size_key = 4, .size_value = 4, .max_elem = 1,
            .id = 42, .inner_idx = 1,
        };
        struct bpf_elf_map SEC("maps") outer = {
            .type = BPF_MAP_TYPE_ARRAY_OF_MAPS, .size_key = 4, .size_value = 4, .max_elem = 2,
            .inner_id = 42,
        };
        """
        + LOOK_INSIDE
    )
    assert obj.programs.look.run(FRAME).retval == 2
    assert obj.maps.inner[0] == 42


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            LONG_DEF + 'struct bpf_map_def SEC("maps") outer = {BPF_MAP_TYPE_HASH_OF_MAPS, 4, 4, 1, 0, 9};',
            r"inner_map_idx is 9, and the object's maps are: 0 outer",
        ),
        (
            DEF + 'struct bpf_map_def SEC("maps") outer = {BPF_MAP_TYPE_HASH_OF_MAPS, 4, 4, 1, 0};',
            r"the definition has no inner_map_idx that says which",
        ),
        (
            ELF_DEF
            + """struct bpf_elf_map SEC("maps") outer = {.type = BPF_MAP_TYPE_ARRAY_OF_MAPS, .size_key = 4,
            .size_value = 4, .max_elem = 1, .inner_id = 3};""",
            r"inner_id is 3, but no map has that id",
        ),
        (
            """struct bpf_map_def { unsigned type, key_size, value_size, max_entries, map_flags, mode; };
            struct bpf_map_def SEC("maps") android = {BPF_MAP_TYPE_HASH, 4, 4, 1, 0, 0644};""",
            r"field 'mode' is set, but libbpf has no such field",
        ),
        (
            DEF + 'struct bpf_map_def SEC("maps") two[2] = {{BPF_MAP_TYPE_HASH, 4, 4, 1, 0}};',
            r"not a struct, but of the kind ARRAY",
        ),
        ('struct { int kind; } other SEC("maps") = {1};', r"no field 'type'; its fields are: kind"),
    ],
)
def test_what_cannot_be_upgraded_says_why(load_code, code, reason):
    with pytest.raises(LoadError, match=rf"(?s)cannot upgrade the legacy definition of map .*{reason}") as e:
        load_code(code)
    assert e.value.errno == errno.EOPNOTSUPP


def test_a_definition_by_types_in_the_old_section_names_the_new_one(load_code):
    code = """
        struct {
            __uint(type, BPF_MAP_TYPE_HASH);
            __uint(max_entries, 4);
            __type(key, __u32);
            __type(value, __u64);
        } counts SEC("%s");
        """
    named = r'definition of map .counts. of .*: it is in SEC\("maps"\), .*\n  -> write SEC\("\.maps"\)'
    with pytest.raises(LoadError, match=named):
        load_code(code % "maps")
    assert load_code(code % ".maps").maps.counts.max_entries == 4


# objects of other projects, from several clangs, with types and without


GIVEN = sorted((Path(__file__).parents[2] / "fixtures/legacy").glob("*.bpf.o"))


@pytest.mark.parametrize("given", GIVEN, ids=lambda path: path.name.partition(".")[0])
def test_a_given_object_is_upgraded_as_it_is_opened(bpf, given):
    before = given.read_bytes()
    obj = bpf.load(given)
    obj.programs.count.run(FRAME)
    assert obj.maps.counts == {1: 1}
    assert obj.maps.last == [0, 6]
    assert given.read_bytes() == before


def test_the_given_objects_are_there():
    assert len(GIVEN) >= 6


def test_the_compiler_writes_the_upgraded_object(bpf, tmp_path):
    source = tmp_path / "old.bpf.c"
    source.write_text(HEAD + DEF + COUNTS + COUNT)
    content = bpf.compile(source).read_bytes()
    assert legacy_maps.upgraded(content, "old.bpf.o") is None
    assert Elf(content).section(".maps")
    assert not Elf(content).section("maps")
