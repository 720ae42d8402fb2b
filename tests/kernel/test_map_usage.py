"""Tests ``--bpf-map-usage``: what is said of maps that lost data, were never used, or are too large."""

from __future__ import annotations

import pytest
from shown_blocks import shows

from pytest_bpfmaps import paths
from pytest_bpfmaps.cost.map_recorder import MapRecorder
from pytest_bpfmaps.harness import Bpf
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.update_counts import FUNCTIONS, Counts, UpdateCounts
from pytest_bpfmaps.maps.fill import MOST, entries, memory

CACHE = paths.cache_dir()  # read before pytester changes HOME
HEAD = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
#define MAP(name, kind, size) struct { __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, size); \\
    __type(key, int); __type(value, long); } name SEC(".maps")
"""
# The program counts what failed by itself: an oracle for what is seen from outside.
SOURCE = (
    HEAD
    + """
MAP(plain, HASH, 4);
MAP(percpu, PERCPU_HASH, 4);
MAP(lru, LRU_HASH, 64);
MAP(lru_percpu, LRU_PERCPU_HASH, 64);
MAP(array, ARRAY, 6);
MAP(percpu_array, PERCPU_ARRAY, 7);
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 3); __type(value, long); } queue SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK); __uint(max_entries, 3); __type(value, long); } stack SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } output SEC(".maps");
int failed[10], rounds;
#define NOTE(place, call) if (call) failed[place]++ // before Linux 6.4, "< 0" would miss what fails

SEC("xdp") int fill(struct xdp_md *ctx)
{
    for (int i = 0; i < 12 && i < rounds; i++) {
        long one = 1;
        int key = i;
        void *record = bpf_ringbuf_reserve(&ring, 900, 0);

        NOTE(0, bpf_map_update_elem(&plain, &key, &one, BPF_ANY));
        NOTE(1, bpf_map_update_elem(&percpu, &key, &one, BPF_ANY));
        NOTE(2, bpf_map_update_elem(&lru, &key, &one, BPF_ANY));
        NOTE(3, bpf_map_update_elem(&lru_percpu, &key, &one, BPF_ANY));
        NOTE(4, bpf_map_update_elem(&array, &key, &one, BPF_ANY));
        NOTE(5, bpf_map_update_elem(&percpu_array, &key, &one, BPF_ANY));
        NOTE(6, bpf_map_push_elem(&queue, &one, 0));
        NOTE(7, bpf_map_push_elem(&stack, &one, 0));
        if (record)
            bpf_ringbuf_submit(record, 0);
        else
            failed[8]++;
        NOTE(9, bpf_ringbuf_output(&output, &failed, sizeof(failed), 0));
        bpf_map_update_elem(&plain, &key, &one, BPF_NOEXIST); // refused as asked for, or full once more
    }
    return XDP_PASS;
}
"""
)
NAMES = (
    *("plain", "percpu", "lru", "lru_percpu", "array", "percpu_array"),
    *("queue", "stack", "ring", "output"),
)


def can_trace(type: MapType) -> bool:
    """Returns whether the functions that update a type can be traced here."""
    with UpdateCounts() as counts:
        counts.watch(0, type)
        return not isinstance(counts.take([0])[0], str)


@pytest.mark.bpf_requires("xdp", "fexit", "ringbuf")
@pytest.mark.parametrize("rounds", [0, 3, 12])
def test_failed_updates_are_those_that_the_program_saw(bpf, rounds):
    with UpdateCounts() as counts:
        loaded = bpf.load(code=SOURCE, globals={"rounds": rounds})
        for each in loaded.maps:
            counts.watch(each.id, each.type)
        loaded.programs.fill.run(data=bytes(64))
        seen = list(loaded.globals.failed)
        ids = {name: loaded.maps[name].id for name in NAMES}
        taken = counts.take(ids.values())
        found = {name: taken[ids[name]] for name in NAMES}
        again = counts.take(ids.values())
        assert all(isinstance(each, str) or each == Counts() for each in again.values())
        counts.release(ids["plain"])
        assert counts.take([ids["plain"]]) == {ids["plain"]: "nothing counted them"}
    for name, failed in zip(NAMES, seen, strict=True):
        if isinstance(found[name], str):  # Linux 7.2 does not let these be traced
            assert name in ("queue", "stack", "ring", "output")
            assert "can't be traced" in found[name]
            continue
        again = max(rounds - 4, 0) if name == "plain" else 0
        assert (name, found[name].failed, found[name].done) == (name, failed + again, rounds - failed)
    assert found["plain"].refused == min(rounds, 4)  # EEXIST
    assert (sum(seen) > 20) == (rounds == 12)


@pytest.mark.bpf_requires("fexit")
@pytest.mark.parametrize("type", ["hash", "percpu_hash"])
def test_the_reasons_are_told_apart(bpf, type):
    with UpdateCounts() as counts:
        full = bpf.create_map(type, key="u32", value="u32", max_entries=1)
        counts.watch(full.id, full.type)
        full[1] = 1
        for flags in (0, 1, 1):
            with pytest.raises(OSError, match="E2BIG"):
                full.update_elem(2, 2, flags)
        with pytest.raises(OSError, match="EEXIST"):
            full.update_elem(1, 2, 1)
        taken = counts.take([full.id])[full.id]
    assert (taken.done, taken.full, taken.memory, taken.busy, taken.refused) == (1, 3, 0, 0, 1)
    assert taken.failed == 3


@pytest.mark.bpf_requires("fexit")
@pytest.mark.parametrize("type", FUNCTIONS, ids=str)
def test_every_function_that_is_named_exists(bpf, type):
    with UpdateCounts() as counts:
        counts.watch(1, type)
        taken = counts.take([1])[1]
    assert not isinstance(taken, str) or "can't be traced: EBUSY" in taken


def test_a_type_whose_functions_are_not_known(bpf):
    with UpdateCounts() as counts:
        counts.watch(1, MapType.PROG_ARRAY)
        assert "prog_array are not known" in counts.take([1])[1]


@pytest.mark.parametrize("type", ["hash", "lru_hash", "percpu_hash", "lru_percpu_hash"])
@pytest.mark.parametrize("value", ["u32", "struct { u8 bytes[5000]; }"])
@pytest.mark.parametrize("count", [0, 1, 40, 200])
def test_entries_of_hashes(bpf, type, value, count):
    made = bpf.create_map(type, key="u64", value=value, max_entries=1000)
    made.update({key * 7: 0 if value == "u32" else {"bytes": b""} for key in range(count)})
    assert entries(made) == len(made) == count


@pytest.mark.parametrize("type", ["array", "percpu_array"])
@pytest.mark.parametrize("value", ["u8", "u32", "u64", "struct { u8 three[3]; }"])
def test_entries_of_arrays_are_those_that_are_not_zero(bpf, type, value):
    made = bpf.create_map(type, key="u32", value=value, max_entries=60)
    assert entries(made) == 0
    for index in (0, 7, 59):
        made[index] = {"three": b"\0\0\1"} if "three" in value else 200
    assert entries(made) == 3


def test_entries_of_other_types(bpf):
    trie = bpf.create_map("lpm_trie", key=8, value="u32", max_entries=100, flags=1)
    for last in range(5):
        trie[32, bytes([10, 0, 0, last])] = last
    assert entries(trie) == 5
    full = bpf.create_map("lpm_trie", key=8, value="u32", max_entries=3, flags=1)
    full.update({(32, bytes([10, 0, 0, last])): last for last in range(3)})
    assert entries(full) == 3
    assert "type queue can't be counted" in entries(bpf.create_map("queue", value="u32", max_entries=4))
    large = bpf.create_map("hash", key="u32", value="u32", max_entries=MOST + 1, flags=1)
    assert entries(large) == "it may hold more than 65,536"
    wide = bpf.create_map("array", key="u32", value=1024, max_entries=65)
    assert entries(wide) == "its values are larger than 65,536 bytes"


def test_many_entries_are_counted_by_batches_only(bpf):
    keys = [(32, bytes([10, 0, n >> 8, n & 255])) for n in range((1 << 12) + 1)]
    trie = bpf.create_map("lpm_trie", key=8, value="u32", max_entries=1 << 13, flags=1)
    trie.update_batch(dict.fromkeys(keys, 1))
    assert entries(trie) == "more than 4,096"
    made = bpf.create_map("hash", key=8, value="u32", max_entries=1 << 13)
    made.update_batch({bytes(4) + last: 1 for _, last in keys})
    assert entries(made) == len(keys)


def test_memory_grows_with_the_map(bpf):
    small, large = (bpf.create_map("hash", key="u32", value="u64", max_entries=n) for n in (8, 8000))
    assert memory(large.fd) - memory(small.fd) > 8000 * 12 * 0.9
    assert memory(10_000_000) is None


@pytest.mark.bpf_requires("ringbuf", "xdp")
def test_the_most_that_a_ring_buffer_had_is_seen_by_its_reader(bpf):
    with MapRecorder("x") as recorder, Bpf(bpf._compiler, observer=recorder) as own:
        recorder.begin("test", {})
        loaded = own.load(code=SOURCE, globals={"rounds": 2})
        with loaded.maps.ring.capture(bytes) as records:
            for _ in range(3):
                loaded.programs.fill.run(data=bytes(64))
                assert len(records) % 2 == 0
        own.close()
        rows = {row[1]: row[3] for row in recorder.take()["rows"]}
    assert rows["ring"]["entries"] == 2 * 912  # 900 and a header of 8 bytes, rounded up
    assert rows["ring"]["produced"] == 6 * 912
    assert not rows["ring"]["was_full"]
    assert rows["output"]["entries"] == rows["output"]["produced"] == 6 * 48
    assert rows["queue"]["entries"] is None


@pytest.mark.bpf_requires("ringbuf", "xdp")
def test_only_what_is_new_is_told(bpf):
    def look(**expected):
        recorder.begin("test", expected)
        recorder.look_at_open()
        return {row[1]: row[3] for row in recorder.take().get("rows", ())}

    with MapRecorder("x") as recorder, Bpf(bpf._compiler, observer=recorder) as own:
        loaded = own.load(code=SOURCE, globals={"rounds": 2})
        loaded.programs.fill.run(data=bytes(64))
        assert look().keys() == set(NAMES)
        assert look() == {}
        loaded.maps.array[4] = 1
        loaded.maps.percpu[7] = 1
        del loaded.maps.plain[0]
        assert {name: row["entries"] for name, row in look().items()} == {"array": 3, "percpu": 3}
        assert look() == {}
        loaded.maps.array[4] = 0
        assert look(percpu=2, array=2).keys() == {"percpu"}
        loaded.programs.fill.run(data=bytes(64))
        again = look()
        assert again["ring"]["entries"] == 4 * 912
        assert "percpu" not in again


SUITE = """
import pytest

@pytest.mark.bpf_map_entries(lru=5, absent=1)
def test_some(bpf):
    bpf.load("fill.bpf.c", globals={"rounds": 12}).programs.fill.run(data=bytes(64))

def test_none(bpf):
    bpf.load("fill.bpf.c").programs.fill.run(data=bytes(64))
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    (pytester.path / "fill.bpf.c").write_text(SOURCE + "\nMAP(never, HASH, 50);\nMAP(huge, HASH, 4000);")
    pytester.makepyfile(test_it=SUITE)

    def run(*options, **outcomes):
        result = pytester.runpytest_subprocess("--bpf-kernel=host", *options)
        result.assert_outcomes(**(outcomes or {"passed": 2}))
        return result

    return run


def lost(name: str, type: MapType, count: int, what: str = "updates") -> str:
    """Returns the pattern of a line; where updates can't be traced, the map is only known to be full."""
    said = rf"lost data: {count} {what}, it was full"
    where = r"test_it\.py::test_some"
    return (
        rf"fill\.bpf\.c: {name} +host +.* {said if can_trace(type) else 'full; how much .* unknown'} +{where}"
    )


@pytest.mark.bpf_requires("xdp", "ringbuf")
def test_the_table(suite):
    result = suite("--bpf-map-usage")
    result.stdout.re_match_lines_random(
        [
            r"map +kernel +entries +memory +finding +test",
            lost("plain", MapType.HASH, 16),
            lost("percpu", MapType.PERCPU_HASH, 8),
            lost("ring", MapType.RINGBUF, 8, "records"),
            r"fill\.bpf\.c: lru +host +12 of 64 .* 12 entries, and the test expects 5 at most +test_it",
            rf"fill\.bpf\.c: never +host +0 of 50 .* {'never used' if can_trace(MapType.HASH) else 'empty'}",
            r"bpf_map_entries of test_it\.py::test_some: no map 'absent' was loaded",
            r"entries are unknown: entries of a map of type queue can't be counted \(queue \[host\]\)",
        ]
    )
    result.stdout.no_re_match_line(r"fill\.bpf\.c: (percpu_array|lru_percpu) ")
    if can_trace(MapType.HASH) and can_trace(MapType.RINGBUF):
        shows("cost.md", "fill.bpf.c", result.stdout.str())
    result = suite("--bpf-map-usage", "-v")
    result.stdout.re_match_lines([r"fill\.bpf\.c: percpu_array +host +7 of 7 "])


def test_without_the_option_there_is_no_table(suite):
    suite().stdout.no_fnmatch_line("*BPF maps*")


def test_objects_of_wider_scope_are_looked_at_after_each_test(suite, pytester):
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.fixture(scope="module")
        def loaded(bpf_module):
            return bpf_module.load("fill.bpf.c")

        @pytest.mark.bpf_map_entries(lru=5)
        def test_first(loaded):
            loaded.maps.lru.update({key: 1 for key in range(20)})

        @pytest.mark.bpf_map_entries(lru=5)
        def test_second(loaded):
            loaded.maps.lru.clear()
        """
    )
    result = suite("--bpf-map-usage")
    result.stdout.re_match_lines(
        [r"fill\.bpf\.c: lru .* 20 entries, and the test expects 5 at most +test_it\.py::test_first"]
    )


def test_nothing_to_say(suite, pytester):
    pytester.makepyfile(
        test_it="def test_it(bpf):\n    bpf.create_map('hash', key=4, value=4, max_entries=1)"
    )
    suite("--bpf-map-usage", passed=1).stdout.fnmatch_lines(["0 maps were looked at, and*nothing to say*"])


@pytest.mark.parametrize("given", ["lru='many'", "lru=-1", "3"])
def test_a_marker_that_names_no_number(suite, pytester, given):
    pytester.makepyfile(test_it=SUITE.replace("lru=5, absent=1", given))
    result = suite("--bpf-map-usage", passed=1, errors=1)
    result.stdout.fnmatch_lines(["*bpf_map_entries of *names no number of entries", "*-> bpf_map_entries(*"])
