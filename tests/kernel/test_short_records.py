"""Tests records that were sent in part: the sent fields have values, and the others raise a clear error."""

import pytest

from pytest_bpfmaps import CaptureTimeoutError, MapValueError, NoValueError
from pytest_bpfmaps.report.assertions import Text, explain

CODE = """
#include <stddef.h>
struct head { __u16 kind; __u32 pid; };
struct event { struct head hdr; __u32 size; char args[64]; };
struct padded { __u32 pid; __u16 size; char name[]; };  // the array begins in the padding
struct tail { __u32 n; __u32 numbers[8]; };
struct pair { __u32 a; struct head hdr; __u64 last; };
struct padded *p; struct tail *t; struct pair *pair; struct event *e; struct head *h;
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} ring SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
    __uint(key_size, 4);
    __uint(value_size, 4);
} perf SEC(".maps");
__u8 bytes[128];
__u32 size;

SEC("tc") int send_ring(struct __sk_buff *skb)
{
    return size > sizeof(bytes) ? -1 : bpf_ringbuf_output(&ring, bytes, size, 0);
}
SEC("tc") int send_perf(struct __sk_buff *skb)
{
    return size > sizeof(bytes) ? -1 : bpf_perf_event_output(skb, &perf, BPF_F_CURRENT_CPU, bytes, size);
}
SEC("tc") int send_none(struct __sk_buff *skb) { return bpf_ringbuf_output(&ring, bytes, 0, 0); }
"""
FRAME = bytes(64)
FULL = bytes([7, 0, 0, 0, 9, 0, 0, 0, 6, 0, 0, 0]) + b"ls -l\0" + bytes(58)
ARGS = 12  # offsetof(struct event, args)

pytestmark = pytest.mark.bpf_requires("ringbuf")


@pytest.fixture
def sender(load_code):
    obj = load_code(CODE)

    def send(data, by="send_ring", size=None):
        obj.globals.bytes = data.ljust(128, b"\0")
        obj.globals.size = len(data) if size is None else size
        assert obj.programs[by].run(FRAME).retval == 0

    obj.send = send
    return obj


def test_the_used_part_of_an_array(sender):
    with sender.maps.ring.capture("event") as events:
        sender.send(FULL[: ARGS + 6])
        sender.send(FULL[: ARGS + 3])
        sender.send(FULL[:ARGS])
        sender.send(FULL)
    assert [e.args for e in events] == ["ls -l", "ls ", "", "ls -l"]
    assert [e.hdr.pid for e in events] == [9] * 4
    assert events[0] == {"hdr": {"kind": 7, "pid": 9}, "size": 6, "args": "ls -l"} == events[3]
    assert events[2] == ((7, 9), 6, "")


def test_arrays_of_numbers_have_the_elements_that_were_sent(sender):
    with sender.maps.ring.capture("tail") as events:
        sender.send(bytes([3, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 7, 0]))
    assert events[0].numbers == [5, 6]


def test_a_flexible_array_that_begins_in_the_padding(sender):
    head = bytes([1, 0, 0, 0, 3, 0])
    with sender.maps.ring.capture("padded") as events:
        for name in (b"", b"a", b"ab", b"abc"):
            sender.send(head + name)
    assert [e.name for e in events] == ["", "a", "ab", "abc"]


def test_fields_that_were_not_sent(sender):
    with sender.maps.ring.capture("pair") as events:
        sender.send(bytes([1, 0, 0, 0, 2, 0]))
        sender.programs.send_none.run(FRAME)
        events.expect(a=1, count=1)
        events.expect({"hdr.kind": 2}, count=1)
        with pytest.raises(CaptureTimeoutError, match="last is not sent, not 0"):
            events.expect(last=0, timeout=0.01)
        events.expect_none(last=0, within=0.01)
    first, empty = events
    with pytest.raises(NoValueError, match=r"(?s)'last' of a record of 6 bytes: .*struct pair .* byte 24"):
        _ = first.last
    with pytest.raises(NoValueError, match=r"'pid' of a record"):
        _ = first.hdr.pid
    with pytest.raises(NoValueError, match=r"'a' of a record of 0 bytes"):
        _ = empty.a
    assert repr(first) == "{'a': 1, 'hdr': {'kind': 2, 'pid': <not there>}, 'last': <not there>}"
    assert first == {"a": 1, "hdr": {"kind": 2}} != empty
    assert first != {"a": 1, "hdr": {"kind": 2}, "last": 0}
    assert first._asdict() == {"a": 1, "hdr": {"kind": 2}}
    assert hash(first) == hash(first)
    with pytest.raises(NoValueError):
        tuple(first)


def test_short_ones_between_whole_ones(sender):
    with sender.maps.ring.capture("event") as events:
        for size in (76, 14, 76, 14, 14):
            sender.send(FULL, size=size)
        assert len(events) == 5
    assert [e.args for e in events] == ["ls -l", "ls", "ls -l", "ls", "ls"]


def test_a_short_record_is_not_written_back_as_zeros(sender, bpf):
    with sender.maps.ring.capture("pair") as events:
        sender.send(bytes([1, 0, 0, 0]))
    target = bpf.create_map(
        "array", key="u32", value="struct { __u32 a; __u64 hdr; __u64 last; }", max_entries=1
    )
    with pytest.raises(NoValueError, match="'hdr' of a record of 4 bytes"):
        target[0] = events[0]


def test_no_array_of_short_records(sender):
    numpy = pytest.importorskip("numpy")
    with sender.maps.ring.capture("event") as events:
        sender.send(FULL)
        assert events.to_numpy()["size"] == numpy.array([6])
        sender.send(FULL[:20])
        with pytest.raises(NoValueError, match="one has 20 bytes, but struct event has 76"):
            events.to_numpy()


class TestRecordsThatCanNotBeRead:
    def test_the_tests_own_failure_is_what_it_reports(self, sender):
        def body():
            with sender.maps.ring.capture("event"):
                sender.send(FULL[:3])
                raise AssertionError("mine")

        with pytest.raises(AssertionError, match="mine"):
            body()

    def test_others_are_there(self, sender):
        with sender.maps.ring.capture({7: "event"}, tag="hdr.kind") as events:
            sender.send(b"\7")
            sender.send(FULL[:20])
            sender.send(b"\5" + FULL[1:])
            assert len(events) == 3
        assert events[1].args == "ls -l"
        with pytest.raises(NoValueError, match=r"record of 1 bytes: its tag 'hdr\.kind' ends at byte 2"):
            _ = events[0]
        with pytest.raises(MapValueError, match=r"whose hdr\.kind is 5"):
            list(events[1:])
        assert "<cannot read a record of 1 bytes" in repr(events)

    def test_a_time_out_lists_them(self, sender):
        with sender.maps.ring.capture({7: "event"}, tag="hdr.kind") as events:
            sender.send(b"\7")
            with pytest.raises(CaptureTimeoutError, match="<cannot read a record of 1 bytes"):
                events.wait(2, timeout=0.01)


@pytest.mark.bpf_requires("perf_event_array")
class TestPerfBuffers:
    def test_the_used_part_of_an_array(self, sender):
        with sender.maps.perf.capture("event") as events:
            sender.send(FULL[: ARGS + 6], by="send_perf")
            sender.send(FULL[:ARGS], by="send_perf")
            sender.send(FULL, by="send_perf")
        assert [(e.hdr.pid, e.size, e.args) for e in events] == [(9, 6, "ls -l"), (9, 6, ""), (9, 6, "ls -l")]

    def test_what_may_be_the_kernels_padding(self, sender):
        with sender.maps.perf.capture("pair") as events:
            sender.send(bytes([1, 0, 0, 0, 2, 0, 0, 0, 3, 0]), by="send_perf")  # the record has 12 bytes
        record = events[0]
        assert record.a == 1
        with pytest.raises(NoValueError, match="rounds the size of a perf buffer's record up"):
            _ = record.hdr.pid
        with pytest.raises(NoValueError, match="did not send it"):
            _ = record.last


def test_a_failed_comparison_shows_what_was_sent(sender):
    with sender.maps.ring.capture("pair") as events:
        sender.send(bytes([1, 0, 0, 0]))
    lines = explain("==", events[0], {"a": 2, "last": 0}, Text())
    assert "  .a: 1, expected 2" in lines
    assert "  .last: <not there>, expected 0" in lines
    assert lines[1] == "2 of 2 fields differ:"
    assert explain("==", events[0], (2,), Text())[1:] == ["1 of 1 fields differs:", "  .a: 1, expected 2"]
