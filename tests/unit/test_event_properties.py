"""Tests how records are found, decoded and described, with random ones."""

import os
import struct
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ring_memory import SIZE, Memory

from pytest_bpfmaps import MapValueError, NameLookupError, NoValueError
from pytest_bpfmaps.btf import Btf, Codecs
from pytest_bpfmaps.btf.types import Kind, Member
from pytest_bpfmaps.btf.writer import BtfWriter
from pytest_bpfmaps.events import ring_fill
from pytest_bpfmaps.events.matching import describe_loss, describe_misses, describe_runs
from pytest_bpfmaps.events.printk_formats import _CONVERSION, _OLD, _first
from pytest_bpfmaps.events.record_fields import Missing, check_names, field_at, fits, value_of
from pytest_bpfmaps.events.records import Block, Records
from pytest_bpfmaps.events.ringbuf_memory import BUSY, DISCARD, RingMemory, count_equal, record_step
from pytest_bpfmaps.events.tagged_records import tagged_codec
from pytest_bpfmaps.kernel.run_counts import Runs


@pytest.fixture(scope="module")
def codecs():
    """Types of records: a head with a kind and a number, in structs of 12 and 20 bytes."""
    writer = BtfWriter()
    number = writer.add_int("unsigned", 4, 0)
    kind = writer.add_enum("kind", 4, [("OPEN", 0), ("EXIT", 1)])
    head = writer.add_struct(
        Kind.STRUCT, "head", 8, [Member("kind", kind, 0, 0), Member("pid", number, 32, 0)]
    )
    begin = Member("head", head, 0, 0)
    writer.add_struct(Kind.STRUCT, "opened", 12, [begin, Member("flags", number, 64, 0)])
    rest = writer.add_array(number, 3)
    writer.add_struct(Kind.STRUCT, "ended", 20, [begin, Member("codes", rest, 64, 0)])
    writer.add_struct(Kind.STRUCT, "moved", 12, [Member("pid", number, 0, 0), Member("head", head, 32, 0)])
    return Codecs(Btf(writer.to_bytes()))


# fields


def test_a_field_is_found_with_its_place_in_the_record(codecs):
    moved = codecs.struct("moved")
    assert [field_at(moved, name).offset for name in ("pid", "head", "head.kind", "head.pid")] == [0, 4, 4, 8]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flag", r"no field 'flag' in struct opened\n.*flags"),
        ("pid", r"no field 'pid' in struct opened\n.*did you mean 'head.pid'\?"),
        ("head.pod", r"no field 'pod' in struct head\n.*pid"),
        ("flags.pid", "no field 'pid' in 'flags': unsigned is not a struct"),
    ],
)
def test_a_field_that_is_not_there(codecs, name, message):
    with pytest.raises(NameLookupError, match=message):
        field_at(codecs.struct("opened"), name)


def opened(codecs, kind=0, pid=7, flags=9):
    return codecs.struct("opened").decode(struct.pack("=III", kind, pid, flags))


def test_values_of_a_record(codecs):
    record = opened(codecs)
    assert (value_of(record, "flags"), value_of(record, "head.pid")) == (9, 7)
    assert isinstance(value_of(record, "codes"), Missing)
    assert repr(value_of(record, "codes")) == "not there"
    assert repr(Missing("sent without it")) == "sent without it"


@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
def test_a_record_fits_when_all_fields_do(codecs, pid, flags, wanted_pid, wanted_flags):
    record = opened(codecs, pid=pid, flags=flags)
    same = (pid, flags) == (wanted_pid, wanted_flags)
    assert fits(record, {"head.pid": wanted_pid, "flags": wanted_flags}) == same
    assert fits(record, {"head": {"pid": wanted_pid}, "flags": wanted_flags}) == same
    assert fits(record, {"head.pid": lambda n: n == wanted_pid, "flags": wanted_flags}) == same
    assert fits(record, {"head.kind": "OPEN"})
    assert not fits(record, {"head.kind": "EXIT"})
    assert not fits(record, {"codes": [0, 0, 0]})


POSSIBLE = ({"flags": 1}, {"head.kind": "OPEN"}, {"head": {"pid": 3}}, {"flags": max}, {"head.kind": 77})
IMPOSSIBLE = [
    ({"flag": 1}, NameLookupError, "no field 'flag' in the records from here\n.*flags"),
    ({"pid": 1}, NameLookupError, r"no field 'pid' in the records from here\n.*'head.pid'"),
    ({"head": {"pod": 3}}, NameLookupError, "no field 'pod' in the records from here\n.*pid"),
    ({"head.kind": "OPAN"}, MapValueError, "cannot wait for head.kind='OPAN' .*\n.*OPEN"),
    ({"flags": -1}, MapValueError, "cannot wait for flags=-1 in .* no unsigned has that value: "),
    ({"flags": 1, "head.pid": 1 << 32}, MapValueError, "cannot wait for head.pid=4294967296"),
]


@pytest.mark.parametrize("wanted", POSSIBLE, ids=str)
def test_fields_that_a_record_can_have(codecs, wanted):
    check_names(codecs.struct("opened"), wanted, "here")


@pytest.mark.parametrize(("wanted", "error", "message"), IMPOSSIBLE)
def test_fields_that_no_record_has(codecs, wanted, error, message):
    with pytest.raises(error, match=message):
        check_names(codecs.struct("opened"), wanted, "here")


def test_one_of_several_types_is_enough(codecs):
    tagged = tagged_codec({0: "opened", "EXIT": "ended"}, "head.kind", codecs, "here")
    for wanted in ({"flags": 1}, {"codes": [1, 2, 3]}, {"head.pid": 1}):
        check_names(tagged, wanted, "here")
    with pytest.raises(NameLookupError, match=r"no field 'code' in the records from here\n.*codes"):
        check_names(tagged, {"code": 1}, "here")


# types by tag


def test_a_tag_decides_the_type(codecs):
    tagged = tagged_codec({0: "opened", "EXIT": "ended"}, "head.kind", codecs, "here")
    assert tagged.size == 4
    first = tagged.decode_padded(struct.pack("=III", 0, 7, 9), 0)
    second = tagged.decode_padded(struct.pack("=IIIII", 1, 7, 1, 2, 3), 0)
    cut = tagged.decode_padded(struct.pack("=III", 1, 7, 1), 0)
    assert (first.flags, list(second.codes), list(cut.codes)) == (9, [1, 2, 3], [1])
    with pytest.raises(
        NoValueError, match=r"cannot read a record of 3 bytes: its tag 'head.kind' ends at byte 4"
    ):
        tagged.decode_padded(bytes(3), 0)
    with pytest.raises(
        MapValueError, match=r"whose head.kind is 5: no struct is given for it\n.*0: struct opened"
    ):
        tagged.decode_padded(struct.pack("=III", 5, 7, 9), 0)


@pytest.mark.parametrize(
    ("types", "tag", "message"),
    [
        ({}, "kind", "no struct is given"),
        ({0: "opened"}, None, "no tag is named"),
        ({0: "opened", 1: "moved"}, "head.kind", "struct opened at 0, 4 bytes, struct moved at 4, 4 bytes"),
    ],
)
def test_tags_that_tell_nothing_apart(codecs, types, tag, message):
    with pytest.raises(MapValueError, match=message):
        tagged_codec(types, tag, codecs, "here")


def test_a_tag_without_types():
    with pytest.raises(NameLookupError, match="cannot decode the records of here: there is no BTF"):
        tagged_codec({0: "opened"}, "kind", None, "here")


def test_records_of_several_types_and_lengths(codecs):
    tagged = tagged_codec({0: "opened", 1: "ended"}, "head.kind", codecs, "here")
    made = Records(tagged, "here")
    made.add(Block(b"x" + struct.pack("=IIIIII", 0, 7, 9, 0, 8, 10), 1, 12, 12, 2))
    made.add(Block(struct.pack("=IIIII", 1, 7, 1, 2, 3), 0, 20, 20, 1))
    assert [each.head.pid for each in made] == [7, 8, 7]
    assert (made[1].flags, list(made[2].codes)) == (10, [1, 2, 3])


def test_an_array_needs_whole_records(codecs):
    pytest.importorskip("numpy")
    made = Records(codecs.struct("opened"), "here")
    made.add(Block(b"x" + struct.pack("=IIIxIIIx", 0, 7, 9, 0, 8, 10), 1, 13, 12, 2))
    assert made.to_numpy()["flags"].tolist() == [9, 10]
    made.add(Block(bytes(8), 0, 8, 8, 1))
    with pytest.raises(NoValueError, match="from here: one has 8 bytes, but struct opened has 12"):
        made.to_numpy()


# what is said


def test_the_closest_records_come_first(codecs):
    records = [opened(codecs, pid=pid, flags=flags) for pid, flags in ((1, 1), (7, 1), (7, 9), (1, 9))]
    said = describe_misses(records, {"head.pid": 7, "flags": 9}).splitlines()
    assert [line.split()[0] for line in said[::2]] == ["[2]", "[1]", "[3]", "[0]"]
    assert [line.strip() for line in said[1::2]] == [
        "matches",
        "flags is 1, not 9",
        "head.pid is 1, not 7",
        "head.pid is 1, not 7, flags is 1, not 9",
    ]
    assert describe_misses([], {"flags": 1}) is None


@pytest.mark.parametrize(
    ("count", "last"), [(5, "      flags"), (6, "  … and 1 more"), (9, "  … and 4 more")]
)
def test_five_records_are_enough(codecs, count, last):
    said = describe_misses([opened(codecs)] * count, {"flags": 1}).splitlines()
    assert sum(line.startswith("  [") for line in said) == 5
    assert said[-1].startswith(last)


def test_hints_at_byte_order_and_functions(codecs):
    def large(number):
        return number > 100

    said = describe_misses([opened(codecs, pid=0x5000)], {"head.pid": 80, "flags": large})
    assert "head.pid is 20480, not 80 (20480 is 80 with its bytes swapped" in said
    assert "flags is 9, not large" in said


@dataclass
class Said:
    """What a buffer says of itself."""

    lost: int = 0
    times_full: int = 0
    overwritten: int = 0
    missed: int = 0
    reader: str | None = None

    def others(self):
        return self.reader


@pytest.mark.parametrize(
    ("buffer", "said"),
    [
        (Said(), None),
        (Said(lost=1), "the kernel lost 1 record: the buffer was full"),
        (Said(lost=2, times_full=1), "the kernel lost 2 records: the buffer was full"),
        (Said(times_full=1), "the ring buffer was full"),
        (Said(overwritten=8, lost=1), "newer records have overwritten 8 bytes"),
        (Said(missed=16, overwritten=8), "16 bytes of records were overwritten"),
        (Said(missed=16, reader="process 7 reads it"), "^process 7 reads it: end it"),
    ],
)
def test_what_may_have_been_lost(buffer, said):
    found = describe_loss(buffer)
    assert (found is None) == (said is None)
    if said:
        assert said.lstrip("^") in found


def test_whether_programs_ran():
    assert describe_runs(None) is describe_runs([]) is None
    said = describe_runs([Runs("a", 1, True), Runs("b", 0, True), Runs("c", 0, False), Runs("d", 2, False)])
    assert said.split("; ") == [
        "program 'a' ran 1 time since the capture began, but sent nothing that fits",
        "program 'b' is attached, but ran 0 times since the capture began: did the trigger reach it?",
        "program 'c' is not attached, and ran 0 times since the capture began",
        "program 'd' ran 2 times since the capture began, but sent nothing that fits",
    ]


# formats

NEW = ["%d", "%5u", "%-08llx", "%c", "%s", "%p", "%pK", "%pI4", "%pks", "%%", "%ld"]
OLD = ["%d", "%u", "%llx", "%s", "%p", "%pus", "%pB"]


WRONG = ["%f", "%lf", "%5.2f", "%*d", "%hd", "%n"]


@given(st.lists(st.sampled_from(NEW)), st.sampled_from(WRONG))
def test_the_first_conversion_that_is_refused(formats, wrong):
    text = ", ".join(formats)
    assert _first(text, _CONVERSION) is None
    assert _first(f"{text} {wrong} %d", _CONVERSION) == wrong
    assert _first(f"{text} {wrong} %f", _CONVERSION) == wrong


@given(st.lists(st.sampled_from(OLD)), st.sampled_from(["%5u", "%-08llx", "%c", "%pK", "%pI4", "%%"]))
def test_older_kernels_refuse_more(formats, wrong):
    assert _first(" ".join(formats), _OLD) is None
    found = _first(" ".join([*formats, wrong]), _OLD)
    assert found
    assert wrong.startswith(found)


def test_a_percent_sign_alone():
    assert _first("100%", _CONVERSION) == "%"


# the memory of a ring


@given(st.integers(0, 1 << 20))
def test_a_record_takes_its_head_and_whole_words(size):
    step = record_step(size)
    assert step % 8 == 0
    assert 8 <= step - size < 16


@given(st.lists(st.sampled_from([4, 8, BUSY | 8]), min_size=1, max_size=300), st.integers(1, 3), st.data())
def test_records_of_equal_length_are_counted(lengths, words, data):
    raw = b"".join(struct.pack("=I", each) + bytes(4 * words) for each in lengths)
    at = data.draw(st.integers(0, len(lengths) - 1))
    most = data.draw(st.integers(1, len(lengths) - at))
    expected = 1
    while expected < most and lengths[at + expected] == lengths[at]:
        expected += 1
    step = 4 + 4 * words
    assert count_equal(memoryview(raw).cast("I"), at * step, lengths[at], step, most) == expected


@pytest.fixture
def ring():
    made = Memory()
    yield made
    os.close(made.fd)


def fill(ring, **options):
    return ring_fill.ring_fill(ring.fd, SIZE, "memory", overwrites=options.get("overwrites", False))


@pytest.mark.parametrize("flags", [0, BUSY, DISCARD])
def test_how_full_a_ring_is(ring, flags):
    """It is full when one more record of the size of the oldest does not fit: the kernel keeps one byte."""
    record, added = 240, 0
    while SIZE - added >= 248:
        ring.add(bytes(record), flags)
        added += 248
        found = fill(ring)
        assert (found.produced, found.unread) == (added, added)
        assert found.is_full == (added + 248 > SIZE - 1)
    assert found.is_full
    ring.consumed(248)
    found = fill(ring)
    assert (found.produced, found.unread, found.is_full) == (added, added - 248, False)


def test_a_ring_that_overwrites_is_never_full(ring):
    for _ in range(17):
        ring.add(bytes(240))
    ring.overwritten(248)
    found = fill(ring, overwrites=True)
    assert (found.unread, found.is_full) == (16 * 248, False)
    ring.consumed(496)
    assert fill(ring, overwrites=True).unread == 15 * 248


def test_equal_records_are_copied_at_once(ring):
    for text in (b"one.....", b"two.....", b"a longer record."):
        ring.add(text)
    memory = RingMemory(ring.fd, SIZE, "memory", writable=False)
    try:
        block = memory.equal_records(0, 8, 2 * 16 + 24)
        assert list(block) == [b"one.....", b"two....."]
        assert list(memory.equal_records(0, 8, 16)) == [b"one....."]
    finally:
        memory.close()
        memory.close()


def test_peaks_are_kept_only_when_they_are_wanted(monkeypatch):
    monkeypatch.setattr(ring_fill, "_peaks", None)
    ring_fill.peak_of(7).unread = 5
    assert ring_fill.take_peak(7) == ring_fill.Peak()
    ring_fill.keep_peaks()
    ring_fill.peak_of(7).unread = 5
    ring_fill.keep_peaks()
    assert ring_fill.peak_of(7).unread == 5
    assert ring_fill.take_peak(7) == ring_fill.Peak(5)
    assert ring_fill.take_peak(7) == ring_fill.take_peak(8) == ring_fill.Peak()
