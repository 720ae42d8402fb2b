"""Tests how what is known of a map becomes a finding, and how figures of several tests are merged."""

from __future__ import annotations

import pytest

from pytest_bpfmaps.cost.map_usage import Key, Usage, Usages, add, add_plain, finding, notes, plain, table

NONE_FAILED = {"full": 0, "memory": 0, "busy": 0}


def usage(**given):
    return Usage(
        **{"type": "hash", "max_entries": 100, "test": "t", "entries": 50, "failed": NONE_FAILED, **given}
    )


@pytest.mark.parametrize(
    ("given", "rank", "text"),
    [
        ({}, None, None),
        ({"failed": {**NONE_FAILED, "full": 1}, "losing": {"t": 1}}, 0, "lost data: 1 update, it was full"),
        (
            {"failed": {"full": 2, "memory": 1, "busy": 3}, "losing": {"t": 6}},
            0,
            "lost data: 2 updates, it was full; 1 update, the kernel had no memory; "
            "3 updates, another program held its lock",
        ),
        ({"entries": 100, "failed": None}, 1, "full; how much it lost is unknown"),
        ({"entries": 100}, None, None),  # it is full, and no update failed
        ({"entries": 100, "failed": None, "type": "array"}, None, None),
        ({"entries": 100, "type": "lru_hash"}, 1, "full: the kernel evicts entries, and does not count them"),
        ({"entries": 0, "updated": False}, 3, "never used: no entry was made"),
        ({"entries": 0, "updated": True}, 3, "empty at the end of each test"),
        ({"entries": 0, "updated": None}, 3, "empty at the end of each test"),
        ({"entries": 0, "type": "array"}, 3, "all zero at the end of each test"),
        ({"entries": 9}, 4, "used below a tenth"),
        ({"entries": 10}, None, None),
        ({"entries": 0, "max_entries": 8, "updated": True}, 3, "empty at the end of each test"),
        ({"entries": 1, "max_entries": 10}, None, None),
        ({"entries": None}, None, None),
        ({"type": "ringbuf", "entries": 0, "produced": 0}, 3, "never used: no record was sent"),
        ({"type": "ringbuf", "entries": 0, "produced": 8}, None, None),
        ({"type": "ringbuf", "entries": 8, "produced": 8, "max_entries": 4096}, None, None),
        ({"type": "ringbuf", "entries": 8, "produced": 8, "max_entries": 8192}, 4, "used below a tenth"),
        ({"type": "ringbuf", "was_full": True, "failed": None}, 1, "full; how much it lost is unknown"),
    ],
)
def test_findings(given, rank, text):
    found = finding(usage(**given))
    assert (found and found.rank, found and found.text) == (rank, text)


def test_the_test_that_lost_most_is_named():
    all_of_them: Usages = {}
    for test, count in (("a", 1), ("b", 5), ("c", 2)):
        failed = {**NONE_FAILED, "full": count}
        add(all_of_them, Key("o", "m", "k"), usage(test=test, failed=failed, losing={test: count}))
    assert finding(all_of_them["o", "m", "k"]) == (0, "lost data: 8 updates, it was full", "b")


def test_merging_keeps_the_largest_figures_and_what_is_unknown():
    first = usage(entries=None, unknown="why", memory=None, updated=False)
    first.add(usage(entries=7, test="u", memory=10, updated=True))
    assert (first.entries, first.test, first.memory, first.updated) == (7, "u", 10, True)
    first.add(usage(entries=3, test="v", memory=5, failed=None, not_counted="no", updated=None))
    assert (first.entries, first.test, first.memory, first.updated) == (7, "u", 10, None)
    assert (first.failed, first.not_counted) == (None, "no")


def test_values_of_a_report():
    before: Usages = {Key("o", "m", "6.1"): usage(losing={"t": 1}, beyond={"t": "x"}, updated=True)}
    now: Usages = {}
    add_plain(now, plain(before))
    assert now == before
    for wrong in (
        [["o", "m"]],
        [["o", "m", "k", {}]],
        [["o", "m", "k", None]],
        [["o", "m", "k", {"type": 1}]],
    ):
        with pytest.raises((ValueError, TypeError, LookupError)):
            add_plain(now, wrong)


def test_kernels_on_which_the_same_is_said_share_a_line():
    usages = {
        Key("o.c", "m", kernel): usage(entries=1, memory=size)
        for kernel, size in (("6.1", 2048), ("5.10", 10))
    }
    usages[Key("o.c", "m", "7.2")] = usage(entries=2, memory=5 << 20)
    usages[Key("o.c", "fine", "7.2")] = usage(memory=None)
    lines = table(usages, everything=False)
    assert [" ".join(line.split()) for line in lines] == [
        "map kernel entries memory finding test",
        "o.c: m 5.10, 6.1 1 of 100 2 KiB used below a tenth t",
        "o.c: m 7.2 2 of 100 5.0 MiB used below a tenth t",
    ]
    assert " ".join(table(usages, everything=True)[-1].split()) == "o.c: fine 7.2 50 of 100 ? t"
    assert table({}, everything=True) == []


def test_what_is_unknown_is_said_once():
    usages = {
        Key("o", f"m{i}", "k"): usage(entries=None, unknown="why", failed=None, not_counted="no")
        for i in range(5)
    }
    assert notes(usages) == [
        "entries are unknown: why (m0 [k], m1 [k], m2 [k], and 2 more maps)",
        "failed updates are unknown: no (m0 [k], m1 [k], m2 [k], and 2 more maps)",
    ]
