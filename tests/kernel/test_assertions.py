"""Tests the explanations of failing `assert`s on maps and records."""

import pytest

from pytest_bpfmaps import MapKeyError

TYPES = """
enum state { IDLE, RUNNING = 5 };
struct stats { __u64 count; enum state state; char comm[12]; };
struct point { __s32 x, y; };
"""


@pytest.fixture
def stats(make_map):
    m = make_map("hash", "__u32", "struct stats", prologue=TYPES, max_entries=100)
    m.update_batch({1: (10, "RUNNING", "cat"), 2: (20, 0, "dog"), 7: (70, 0, "fox")})
    return m


@pytest.fixture(autouse=True)
def outside_of_ci(monkeypatch):
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)


def lines_of(check):
    """Returns the explanation of an assertion that fails."""
    with pytest.raises(AssertionError) as caught:
        check()
    first, *more = str(caught.value).splitlines()
    return [first.removeprefix("assert "), *(line.removeprefix("  ") for line in more)]


@pytest.mark.filterwarnings("ignore::pytest_bpfmaps.errors.UnknownNameWarning")
def test_a_map_shows_what_differs_by_key(stats):
    def check():
        assert stats == {
            1: {"count": 11, "state": "x", "comm": "cat"},
            2: {"count": 20, "state": 0, "comm": "dog"},
            3: {"count": 30},
        }

    title, count, *keys = lines_of(check)
    assert title.startswith("map 'the_map' (hash) == {1: {'count': 11")
    assert count == "3 of 4 keys differ:"
    assert keys == [
        "  key 1: .count 10, expected 11; .state RUNNING (5), expected 'x'",
        "  key 3: missing, expected {'count': 30}",
        "  key 7: {'count': 70, 'state': IDLE (0), 'comm': 'fox'}, not expected",
    ]


def test_a_snapshot_says_whose_it_is(stats):
    seen = stats.snapshot()

    def check():
        assert seen == {}

    assert lines_of(check)[:3] == [
        "map 'the_map' (hash) == {}",
        "3 of 3 keys differ:",
        "  key 1: {'count': 10, 'state': RUNNING (5), 'comm': 'cat'}, not expected",
    ]


def test_the_mapping_may_stand_on_the_left(stats):
    def check():
        assert {} == stats  # noqa: SIM300

    assert lines_of(check)[0] == "{} == map 'the_map' (hash)"


def test_the_report_has_what_was_compared_not_what_came_later(make_map):
    m = make_map("hash")
    m[1] = 1

    class Late(dict):
        def __len__(self):
            m[1] = 2  # a program could do this right after the map was read
            return super().__len__()

    def check():
        assert m == Late({1: 2})

    assert "  key 1: 1, expected 2" in lines_of(check)


def test_many_differences_are_cut_and_counted(make_map):
    m = make_map("hash", max_entries=2000)
    m.update_batch({k: k for k in range(2000)})

    def check():
        assert m == {k: k + (k % 2) for k in range(2000)}

    lines = lines_of(check)
    assert lines[1] == "1000 of 2000 keys differ:"
    assert lines[2:7] == [f"  key {k}: {k}, expected {k + 1}" for k in range(1, 10, 2)]
    assert lines[7:] == ["  … and 995 more (-vv shows all)"]
    assert len(lines[0]) < 200


def test_a_subset_shows_only_its_own_keys(stats):
    def more():
        assert stats >= {1: (10, 5, "cat"), 2: (21, 0, "dog"), 4: (1, 1, "ant")}

    def less():
        assert stats <= {1: (10, 5, "cat"), 2: (20, 0, "dog")}

    assert lines_of(more)[0].startswith("map 'the_map' (hash) >= {1: (10, 5, 'cat')")
    assert lines_of(more)[1:] == [
        "2 of 3 keys differ:",
        "  key 2: {'count': 20, 'state': IDLE (0), 'comm': 'dog'}, expected (21, 0, 'dog')",
        "  key 4: missing, expected (1, 1, 'ant')",
    ]
    assert lines_of(less)[2] == "  key 7: {'count': 70, 'state': IDLE (0), 'comm': 'fox'}, not expected"


def test_struct_keys_are_sorted_and_taken_in_any_shape(make_map):
    m = make_map("hash", "struct point", "__u64", prologue=TYPES)
    m.update_batch({(2, 1): 1, (1, 9): 2, (1, 2): 3})

    def check():
        assert m == {(1, 2): 4, (2, 1): 1}

    assert lines_of(check)[1:] == [
        "2 of 3 keys differ:",
        "  key {'x': 1, 'y': 2}: 3, expected 4",
        "  key {'x': 1, 'y': 9}: 2, not expected",
    ]


def test_an_array_against_a_list(make_map):
    m = make_map("array", max_entries=3)
    m[1] = 5

    def check():
        assert m == [0, 6, 0]

    assert lines_of(check) == [
        "map 'the_map' (array) == [0, 6, 0]",
        "1 of 3 keys differ:",
        "  key 1: 5, expected 6",
    ]


def test_per_cpu_values_and_sums(make_map):
    m = make_map("percpu_hash")
    m[1] = 3
    cpus = len(m[1])

    def values():
        assert m[1] == [3] * (cpus - 1) + [4]

    def sums():
        assert m.sum() == {1: 3 * cpus + 1}

    assert lines_of(values)[1:] == [
        f"1 of {cpus} CPUs differ{'s' * (cpus == 1)}:",
        f"  CPU {cpus - 1}: 3, expected 4",
    ]
    assert (
        lines_of(sums)[0] == f"the sum over all CPUs of map 'the_map' (percpu_hash) == {{1: {3 * cpus + 1}}}"
    )
    assert lines_of(sums)[2] == f"  key 1: {3 * cpus}, expected {3 * cpus + 1}"


def test_a_record_shows_its_fields(stats):
    record = stats[1]

    def mapping():
        assert record == {"count": 10, "state": 5, "com": "cat"}

    def values():
        assert record == (10, 5, "dog")

    assert lines_of(mapping)[1:] == [
        "2 of 4 fields differ:",
        "  .com: missing, expected 'cat'",
        "  .comm: 'cat', not expected",
    ]
    assert lines_of(values) == [
        "struct stats == (10, 5, 'dog')",
        "1 of 3 fields differ:",
        "  .comm: 'cat', expected 'dog'",
    ]


def test_a_capture_shows_its_records(load_code):
    sender = load_code("""
    struct event { __u32 number; };
    struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
    SEC("xdp") int send(struct xdp_md *ctx)
    {
        struct event event = {.number = ctx->data_end - ctx->data};
        bpf_ringbuf_output(&events, &event, sizeof(event), 0);
        return XDP_PASS;
    }
    """)
    with sender.maps.events.capture() as events:
        for size in (14, 15):
            sender.programs.send.run(bytes(size))

    def check():
        assert events == [{"number": 14}, {"number": 16}, {"number": 17}]

    assert lines_of(check) == [
        "the records from map 'events' (ringbuf) == [{'number': 14}, {'number': 16}, {'number': 17}]",
        "2 records, 3 expected",
        "2 of 3 records differ:",
        "  record 1: .number 15, expected 16",
        "  record 2: missing, expected {'number': 17}",
    ]


def test_wait_until_says_what_it_last_saw(bpf, stats):
    def arrived():
        assert stats >= {9: (1, 0, "")}
        return True

    with pytest.raises(AssertionError, match=r"(?s)until arrived\(\) is true.*key 9: missing, expected"):
        bpf.wait_until(arrived, timeout=0.01)


@pytest.mark.parametrize(("left", "right"), [({1: 2}, {1: 3}), ([1], [2]), (1, 2), ("a", "b")])
def test_foreign_values_are_left_to_pytest(stats, left, right):
    from pytest_bpfmaps.report.assertions import Text, explain

    assert explain("==", left, right, Text()) is None
    assert explain("==", stats, 3, Text()) is None


def test_keys_in_the_other_byte_order(bpf):
    """A port is often stored in network byte order: 2000 is 53255 then."""
    from pytest_bpfmaps.report.assertions import Text, explain

    ports = bpf.create_map("hash", key="u16", value="u32", max_entries=8)
    ports[53255] = 7
    swapped = "53255 is 2000 with its bytes swapped"
    with pytest.raises(MapKeyError, match=f"{swapped}.*bpf_ntohs"):
        ports[2000]
    assert swapped in explain("==", ports, {2000: 7}, Text())[-1]
    assert not any("swapped" in line for line in explain("==", ports, {2001: 7}, Text()))
    flows = bpf.create_map("hash", key="struct { u32 ip; u16 port; }", value="u32", max_entries=8)
    flows[{"ip": 1, "port": 53255}] = 3
    with pytest.raises(MapKeyError, match=rf"\.port: {swapped}"):
        flows[{"ip": 1, "port": 2000}]
    with pytest.raises(MapKeyError) as other:
        flows[{"ip": 2, "port": 2000}]
    assert "swapped" not in str(other.value)


FAILING = """
CODE = '''
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 99); __type(key, int); __type(value, int); }
m SEC(".maps");
'''

def test_it(bpf):
    m = bpf.load(code=CODE).maps.m
    m.update_batch({k: k for k in range(99)})
    assert m == {}
"""


def test_all_with_two_vs(pytester):
    pytester.makepyfile(FAILING)
    pytester.runpytest_inprocess("-vv").stdout.fnmatch_lines(
        ["E * assert map 'm' (hash) == {}", "E * 99 of 99 keys differ:", "E * key 98: 98, not expected"]
    )
