"""Tests static variables of which clang keeps only parts: their BTF still has the whole type.

A program of the same object returns each value, so the kernel tells the truth.
"""

import pytest

from pytest_bpfmaps import MapError, MapValueError, NameLookupError, VerifierError

CODE = """
struct counters { __u8 a; __u64 b; __u32 c; };
static QUALIFIER struct counters split = {1, 2, 3};
static QUALIFIER __u64 pair[2] = {0x11, 0x22};
static QUALIFIER int mode = 5, flag, far = -1;
static QUALIFIER enum { IDLE = 3, BUSY = 300 } state = IDLE;
static QUALIFIER __u64 wide = 1;
static QUALIFIER __u8 small, letter = 'a';
static QUALIFIER _Bool on;
__u64 beside = 77;
__u64 result;
SEC("xdp") int change(struct xdp_md *ctx)
{
    split.b++;
    split.c++;
    pair[0]++;
    pair[1] += 2;
    mode = 7;
    flag = 1;
    far = -5;
    state = BUSY;
    wide = 0x123456789;
    small++;
    letter = 'z';
    on = 1;
    return 2;
}
#define TELLS(name) SEC("xdp") int tell_##name(struct xdp_md *ctx) { result = name; return 2; }
TELLS(mode) TELLS(flag) TELLS(far) TELLS(state) TELLS(wide)
TELLS(small) TELLS(letter) TELLS(on)
SEC("xdp") int tell_split(struct xdp_md *ctx)
{
    result = split.a + split.b + split.c + pair[0] + pair[1];
    return 2;
}
"""
FIRST = {"mode": 5, "flag": 0, "far": -1, "state": 3, "wide": 1, "small": 0, "letter": 97, "on": False}
LATER = {
    "mode": 7,
    "flag": 1,
    "far": -5,
    "state": 300,
    "wide": 0x123456789,
    "small": 1,
    "letter": 122,
    "on": True,
}


@pytest.fixture
def load(load_code):
    return lambda qualifier="", **options: load_code(CODE.replace("QUALIFIER", qualifier), **options)


def as_the_program_sees(obj, name):
    obj.programs[f"tell_{name}"].run(bytes(64))
    value = obj.globals.result
    return value - (1 << 64) if name == "far" else value


@pytest.mark.parametrize("qualifier", ["", "volatile"])
def test_numbers_with_two_values(load, qualifier):
    obj = load(qualifier)
    for expected in (FIRST, LATER):
        for name, value in expected.items():
            assert obj.globals[name] == value == as_the_program_sees(obj, name), name
        assert obj.globals >= expected
        obj.programs.change.run(bytes(64))
    for name, value in FIRST.items():
        obj.globals[name] = value
        assert obj.globals[name] == value == as_the_program_sees(obj, name), name
    assert obj.globals.beside == 77


def test_numbers_that_are_set_before_the_load(load):
    obj = load(globals=LATER)
    for name, value in LATER.items():
        assert obj.globals[name] == value == as_the_program_sees(obj, name), name
    assert obj.globals.state.name == "BUSY"


def test_a_value_that_the_program_never_gives(load):
    with pytest.raises(MapValueError, match=r"gives it only 5 and 7, and clang keeps only a byte") as failed:
        load(globals={"mode": 6})
    assert "declare it volatile" in failed.value.fix
    obj = load("volatile", globals={"mode": 6})
    assert obj.globals.mode == 6 == as_the_program_sees(obj, "mode")


@pytest.mark.parametrize("name", ["split", "pair"])
def test_variables_that_clang_has_split(load, name):
    obj = load()
    with pytest.raises(
        NameLookupError, match=rf"clang has optimized it, and keeps only '{name}\.\d' "
    ) as failed:
        _ = obj.globals[name]
    assert f"declare {name!r} volatile" in failed.value.fix
    with pytest.raises(NameLookupError):
        obj.globals[f"{name}.0"] = {}
    assert not [each for each in obj.globals if each.startswith(name)]
    obj = load("volatile")
    obj.programs.change.run(bytes(64))
    obj.programs.tell_split.run(bytes(64))
    assert obj.globals.split == {"a": 1, "b": 3, "c": 4}
    assert obj.globals.pair == [0x12, 0x24]
    assert obj.globals.result == 1 + 3 + 4 + 0x12 + 0x24


LOCKED = """
struct value { struct bpf_spin_lock lock; int n; };
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, struct value);
} m SEC(".maps");
static QUALIFIER struct { __u8 a; __u64 b; } split = {1, 2};
SEC("tc") int count(struct __sk_buff *skb)
{
    __u32 key = 1;
    struct value *value = bpf_map_lookup_elem(&m, &key);
    split.b++;
    if (!value)
        return 1;
    bpf_spin_lock(&value->lock);
    value->n++;
    bpf_spin_unlock(&value->lock);
    return 0;
}
"""


def test_a_kernel_that_refuses_all_types_because_of_one_variable(load_code):
    with pytest.raises(VerifierError, match="clang has optimized the static variable 'split'") as failed:
        load_code(LOCKED.replace("QUALIFIER", ""))
    assert "declare 'split' volatile" in failed.value.fix
    obj = load_code(LOCKED.replace("QUALIFIER", "volatile"))
    obj.maps.m[1] = {"n": 4}
    assert obj.programs.count.run(bytes(64)).retval == 0
    assert obj.maps.m[1].n == 5


FLEXIBLE = """
struct { int n; long more[]; } list = {1, {2, 3}};
long beside = 77;
SEC("xdp") int tell(struct xdp_md *ctx) { return list.n + list.more[0] + list.more[1]; }
"""


def test_a_flexible_array_has_what_the_variable_has(load_code):
    obj = load_code(FLEXIBLE)
    assert obj.globals.list == {"n": 1, "more": [2, 3]}
    obj.globals.list = {"n": 4, "more": [5]}
    assert obj.globals.list == {"n": 4, "more": [5, 0]}
    assert obj.programs.tell.run(bytes(64)).retval == 9
    with pytest.raises(
        MapValueError, match="cannot store 32 bytes in global 'list': the variable has 24 bytes"
    ):
        obj.globals.list = {"n": 4, "more": [5, 6, 7]}
    assert obj.globals.beside == 77


CONSTANTS = """
const int limit = 100;
const int table[4] = {1, 2, 3, 4};
const volatile int used = 6;
const volatile int nobody_uses_it = 7;
SEC("xdp") int tell(struct xdp_md *ctx) { return limit + table[ctx->rx_queue_index & 3] + used; }
"""


def test_a_constant_whose_value_is_in_the_code(load_code):
    """The variable is still there, and setting it would change nothing."""
    assert load_code(CONSTANTS).globals.limit == 100
    with pytest.raises(MapError, match=r"cannot set 'limit' .*is const but not volatile") as failed:
        load_code(CONSTANTS, globals={"limit": 5})
    assert "declare it const volatile … limit" in failed.value.fix
    obj = load_code(CONSTANTS.replace("const int limit", "const volatile int limit"), globals={"limit": 5})
    assert obj.programs.tell.run(bytes(64)).retval == 5 + 1 + 6


def test_constants_that_the_program_reads_can_be_set(load_code):
    obj = load_code(CONSTANTS, globals={"table": [20, 0, 0, 0], "used": 7, "nobody_uses_it": 8})
    assert obj.programs.tell.run(bytes(64)).retval == 100 + 20 + 7
    assert obj.globals.nobody_uses_it == 8
