"""Tests that an enum's value equals its name everywhere, and that a misspelt name causes a warning."""

import pytest

import pytest_bpfmaps
from pytest_bpfmaps import UnknownNameWarning
from pytest_bpfmaps.kernel.bpf_types import MapType, ProgramType
from pytest_bpfmaps.kernel.return_values import NAMES

CODE = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

enum kind { NONE, EXEC, EXIT, name, value };
struct event { enum kind kind; __u32 count; enum kind bits : 4; };

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct event);
} records SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, enum kind);
} kinds SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
} events SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, enum kind);
} by_cpu SEC(".maps");
struct pair { enum kind kind; int n; };
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
    __uint(max_entries, 600);
    __type(key, enum kind);
    __type(value, enum kind);
} by_kind SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4);
    __type(key, struct pair);
    __type(value, enum kind);
} by_pair SEC(".maps");
enum odd { mro, _x_, __eq__, _generate_next_value_, self, plain };
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, enum odd);
} odd SEC(".maps");
enum kind last = EXIT, both[2] = { NONE, EXIT };

SEC("xdp") int drop(struct xdp_md *ctx)
{
    __u32 key = 0;
    struct event *event = bpf_map_lookup_elem(&records, &key);

    if (!event)
        return XDP_ABORTED;
    event->kind = EXEC;
    event->bits = EXIT;
    return XDP_DROP;
}

SEC("tc") int shot(struct __sk_buff *skb)
{
    struct event event = { .kind = EXIT, .count = 1 };

    bpf_perf_event_output(skb, &events, BPF_F_CURRENT_CPU, &event, sizeof(event));
    return TC_ACT_SHOT;
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def loaded(bpf):
    made = bpf.load(code=CODE)
    made.programs.drop.run(bytes(64))
    return made


def test_verdicts(loaded):
    xdp, tc = (p.run(bytes(64)).retval for p in (loaded.programs.drop, loaded.programs.shot))
    assert xdp == "XDP_DROP"
    assert xdp != "XDP_PASS"
    assert xdp in ("XDP_PASS", "XDP_DROP")
    assert xdp == pytest_bpfmaps.XDP_DROP == 1
    assert tc == "TC_ACT_SHOT" == tc
    assert tc == "TCX_DROP"
    assert tc != "TC_ACT_OK"
    assert {xdp: 1}[1] == 1
    for wrong, meant in (("XDP_DORP", "XDP_DROP"), ("TC_ACT_SHOT", "there are: XDP_")):
        with pytest.warns(UnknownNameWarning, match=f"XdpAction .* '{wrong}', .*{meant}") as said:
            assert xdp != wrong
        assert said[0].filename == __file__


@pytest.mark.parametrize("names", set(NAMES.values()), ids=lambda names: names.__name__)
def test_each_name_of_each_kind_of_verdict(names):
    for text, member in names.__members__.items():
        assert member == text
        assert not member != text  # noqa: SIM202 - that is another method
        assert [t for t in names.__members__ if member == t] == [
            t for t, m in names.__members__.items() if m is member
        ]
        assert member == int(member)
        assert hash(member) == hash(int(member))


def test_values_of_maps_and_variables(loaded):
    record = loaded.maps.records[0]
    assert record.kind == "EXEC"
    assert record.bits == "EXIT"
    assert record.kind != "EXIT"
    assert record == {"kind": "EXEC", "count": 0, "bits": "EXIT"}
    assert loaded.globals.last == "EXIT"
    loaded.maps.kinds[1] = "name"
    assert loaded.maps.kinds[1] == "name"
    assert loaded.maps.kinds == ["NONE", "name"] == list(loaded.maps.kinds.values())
    assert loaded.maps.kinds != ["NONE", "value"]


def test_a_misspelt_name_is_not_just_unequal(loaded):
    record, kinds = loaded.maps.records[0], loaded.maps.kinds
    kinds[1] = 99  # the enum has no name for it
    for compare in (
        lambda: record.kind != "EXCE",
        lambda: record != {"kind": "EXCE", "count": 0, "bits": 2},
        lambda: record != {"kind": 1, "count": 0, "bits": "EXCE"},
        lambda: loaded.globals.last != "EXCE",
        lambda: kinds[0] != "EXCE",
        lambda: kinds != {0: 0, 1: "EXCE"},
    ):
        with pytest.warns(
            UnknownNameWarning, match="'EXCE', which is none of its names: did you mean 'EXEC'"
        ) as said:
            assert compare()
        assert {each.filename for each in said} == {__file__}
    with pytest.warns(UnknownNameWarning), pytest.raises(AssertionError, match="EXCE"):
        assert record.kind == "EXCE"


def test_keys_are_found_by_name_in_each_view(loaded):
    kinds, pairs = loaded.maps.by_kind, loaded.maps.by_pair
    for several in (False, True):
        kinds["EXEC"], pairs[("EXEC", 1)] = "EXIT", "EXIT"
        if several:  # a large snapshot stays packed
            kinds.update(dict.fromkeys(range(1000, 1590), 0))
        for view in (kinds, kinds.keys(), kinds.snapshot(), kinds.snapshot().keys(), kinds.sum().keys()):
            assert "EXEC" in view
            assert "EXIT" not in view
    for pair_view in (pairs, pairs.keys(), pairs.snapshot(), dict.fromkeys(pairs.keys())):
        assert (1, 1) in pair_view
    assert ("EXEC", 1) in pairs.keys()  # noqa: SIM118 - that is another view
    assert pairs.keys() == {("EXEC", 1)} == pairs.keys()
    assert pairs.keys() != {("EXEC", 2)}
    assert pairs.items() == {("EXEC", 1): "EXIT"}.items() == pairs.items()
    assert pairs.items() != {("EXEC", 1): "EXEC"}.items()
    assert (("EXEC", 1), "EXIT") in pairs.items()
    assert (("EXEC", 1), "EXEC") not in pairs.items()
    assert ("EXEC", 2 * len(kinds["EXEC"])) in kinds.sum().items()


def test_two_shapes_of_one_key_are_no_two_keys(loaded):
    kinds = loaded.maps.by_kind
    kinds["EXEC"] = kinds["EXIT"] = "EXIT"
    values = {"EXEC": ["EXIT"] * len(kinds[1]), 1: ["EXIT"] * len(kinds[1])}
    assert kinds != values
    assert kinds.snapshot() != values
    assert kinds.keys() != values.keys()
    assert kinds.sum() != {"EXEC": kinds.sum()[1], 1: kinds.sum()[1]}
    assert kinds == {"EXEC": values[1], 2: values[1]}
    assert kinds.keys() == {"EXEC", 2}


def test_a_misspelt_key_is_not_just_absent(loaded):
    kinds, pairs = loaded.maps.by_kind, loaded.maps.by_pair
    kinds["EXEC"], pairs[("EXEC", 1)] = "EXIT", "EXIT"
    large = kinds.snapshot
    for look in (
        lambda: "EXCE" not in kinds.sum(),
        lambda: kinds.sum().get("EXCE", 0) == 0,
        lambda: kinds.sum() != {"EXCE": 2},
        lambda: "EXCE" not in kinds.keys(),  # noqa: SIM118
        lambda: ("EXCE", 2) not in kinds.items(),
        lambda: kinds.keys() != {"EXCE"},
        lambda: kinds != {"EXCE": "EXIT"},
        lambda: not kinds >= {"EXCE": "EXIT"},
        lambda: pairs.snapshot().get(("EXCE", 1)) is None,
        lambda: pairs != {("EXCE", 1): "EXIT"},
        lambda: (("EXEC", 1), "EXCE") not in pairs.items(),
        lambda: large().get("EXCE") is None,
    ):
        with pytest.warns(
            UnknownNameWarning, match="'EXCE', which is none of its names: did you mean 'EXEC'"
        ) as said:
            assert look()
        assert {each.filename for each in said} == {__file__}
    kinds.update(dict.fromkeys(range(1000, 1590), 0))
    with pytest.warns(UnknownNameWarning, match="'EXCE'"):
        assert kinds.snapshot().get("EXCE") is None
    with pytest.raises(ValueError, match=r"no such name\n.*mean 'EXEC'"):
        _ = "EXCE" in kinds


def test_a_misspelt_name_is_not_just_awaited(loaded):
    with loaded.maps.events.capture() as events:
        loaded.programs.shot.run(bytes(64))
        assert events.expect(kind="EXIT")[0] == {"kind": "EXIT", "count": 1, "bits": "NONE"}
        loaded.programs.shot.run(bytes(64))
        for wait in (events.expect_none, events.expect):
            for field in ("kind", "bits"):
                with pytest.raises(ValueError, match=rf"{field}='EXTI' in .*no such name\n.*mean 'EXIT'"):
                    wait({field: "EXTI"})


def test_what_is_equal_has_the_same_hash(loaded):
    """A tuple, which has a hash, must have members or numbers. A list and a mapping may have names."""
    record, kinds = loaded.maps.records[0], list(loaded.maps.kinds.values())
    for wanted in (("EXEC", 0, "EXIT"), ("EXEC", 0, 2), (1, 0, 2), (record.kind, 0, 2), ("EXIT", 0, 2)):
        assert record != wanted or hash(record) == hash(wanted)
    assert record == (1, 0, 2) == record
    values, cpus = loaded.globals.both, loaded.maps.by_cpu[0]
    assert values == ["NONE", "EXIT"] == values
    assert values != ("NONE", "EXIT")
    assert values == (0, 2)
    assert hash(values) == hash((0, 2))
    assert cpus == ["NONE"] * len(cpus)
    assert cpus != ("NONE",) * len(cpus)
    assert cpus == (0,) * len(cpus)
    assert {record: 1, values: 2, cpus: 3, (1, 0, 2): 4} == {record: 4, values: 2, cpus: 3}
    assert kinds == ["NONE", "NONE"]


def test_names_that_python_has_for_itself(loaded):
    odd = loaded.maps.odd
    for number, name in enumerate(("mro", "_x_", "__eq__", "_generate_next_value_", "self", "plain")):
        odd[0] = name
        assert odd[0] == number
        assert odd == [name]
        assert odd != ["plain" if number < 5 else "self"]
    assert odd[0] == "plain"
    odd[0] = "self"
    assert odd[0] == "self"
    assert odd[0] != "plain"


def test_types(loaded):
    assert loaded.maps.records.type == "array" == loaded.maps.records.type
    assert loaded.maps.records.type == "BPF_MAP_TYPE_ARRAY"
    assert loaded.maps.records.type != "hash"
    assert loaded.programs.drop.type == "xdp"
    assert loaded.programs.drop.type != "sched_cls"
    assert all(kind == str(kind) for kind in (*MapType, *ProgramType))
    with pytest.warns(UnknownNameWarning, match="did you mean 'array'"):
        assert loaded.maps.records.type != "arry"


def test_a_wrong_name_is_in_no_large_snapshot(make_map):
    m = make_map("hash", "enum kind", prologue="enum kind { NONE, SOME = 7 };", max_entries=600)
    m.update_batch({number: number + 1 for number in range(600)})
    for look in (lambda seen: "SOEM" in seen, lambda seen: seen.get("SOEM")):
        with pytest.warns(UnknownNameWarning, match="'SOEM'"):
            assert not look(m.snapshot())
    assert m.snapshot()["SOME"] == 8
    assert "SOME" in m.snapshot()
