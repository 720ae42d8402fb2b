"""Tests, word by word, what a capture says when records are missing, too many, or not what was expected."""

import resource

import pytest

from pytest_bpfmaps import CaptureTimeoutError, NameLookupError, NoValueError
from pytest_bpfmaps.kernel.release import shown_timeout

CODE = """
struct event { __u32 number; __u16 port; __u16 size; };
struct event *e;
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");
SEC("tc") int send(struct __sk_buff *skb)
{
    struct event event = {.number = skb->mark, .port = 80, .size = skb->priority};
    return bpf_ringbuf_output(&events, &event, sizeof(event), 0);
}
"""
FROM = "from map 'events' (ringbuf)"

pytestmark = pytest.mark.bpf_requires("ringbuf")


@pytest.fixture
def sender(load_code):
    return load_code(CODE)


@pytest.fixture
def events(sender):
    with sender.maps.events.capture("event") as events:
        yield events


@pytest.fixture
def send(sender):
    def send(*numbers):
        for number in numbers:
            assert sender.programs.send.run(bytes(64), ctx={"mark": number}).retval == 0

    return send


def message_of(call, *arguments, **options):
    with pytest.raises(CaptureTimeoutError) as failed:
        call(*arguments, **options)
    return str(failed.value).split("\n")


def shown(*numbers):
    return [f"  {{'number': {n}, 'port': 80, 'size': 0}}" for n in numbers]


def test_nothing_came(events):
    why = "program 'send' is not attached, and ran 0 times since the capture began"
    assert message_of(events.wait, timeout=0) == [f"waited 0 s for 1 record {FROM}: 0 came", f"  -> {why}"]
    waited = f"waited {shown_timeout(0.01)} for 2 records"
    assert message_of(events.wait, 2, timeout=0.01)[0] == f"{waited} {FROM}: 0 came"
    assert message_of(events.expect, timeout=0) == [
        f"expected a record with any fields {FROM}: 0 of 0 captured records matched in 0 s",
        f"  -> {why}",
    ]


@pytest.mark.parametrize("count", [1, 5, 6, 8])
def test_fewer_came(events, send, count):
    send(*range(count))
    lines = message_of(events.wait, 9, timeout=0)
    assert lines[0] == f"waited 0 s for 9 records {FROM}: {count} came"
    rest = [f"  … and {count - 5} more"] if count > 5 else []
    assert lines[1:-1] == shown(*range(min(count, 5))) + rest
    times = "1 time" if count == 1 else f"{count} times"
    assert lines[-1] == f"  -> program 'send' ran {times} since the capture began, but sent nothing that fits"


@pytest.mark.parametrize("count", [1, 5, 6, 8])
def test_others_came(events, send, count):
    send(*range(count))
    lines = message_of(events.expect, number=77, size=0, timeout=0)
    assert lines[0] == (
        f"expected a record with number=77, size=0 {FROM}: 0 of {count} captured records matched in 0 s"
    )
    closest = [
        line
        for n in range(min(count, 5))
        for line in (f"  [{n}] {shown(n)[0].strip()}", f"      number is {n}, not 77")
    ]
    rest = [f"  … and {count - 5} more"] if count > 5 else []
    assert lines[1:-1] == closest + rest


def test_the_closest_come_first(events, send):
    send(1, 2, 3)
    lines = message_of(events.expect, number=3, size=9, timeout=0)
    assert lines[1::2][:3] == [f"  [{n - 1}] {shown(n)[0].strip()}" for n in (3, 1, 2)]
    assert lines[2:7:2] == [
        "      size is 0, not 9",
        "      number is 1, not 3, size is 0, not 9",
        "      number is 2, not 3, size is 0, not 9",
    ]


def test_too_few_and_too_many_match(events, send):
    send(1, 1, 2)
    lines = message_of(events.expect, number=1, count=3, timeout=0)
    assert lines[0] == f"expected 3 records with number=1 {FROM}: 2 of 3 captured records matched in 0 s"
    assert lines[1:5] == [
        f"  [0] {shown(1)[0].strip()}",
        "      matches",
        f"  [1] {shown(1)[0].strip()}",
        "      matches",
    ]
    assert len(lines) == 7, "there is no advice, because some records came"
    lines = message_of(events.expect, number=1, count=1, timeout=0)
    assert lines[0] == f"expected 1 record with number=1 {FROM}: 2 of 3 captured records matched in 0 s"
    assert events.expect(number=1, count=2, timeout=0) == [
        {"number": 1, "port": 80, "size": 0},
        {"number": 1, "port": 80, "size": 0},
    ]


def test_no_record_is_expected_as_a_number(events, send):
    send(1)
    assert events.expect(number=2, count=0, timeout=0) == []
    assert message_of(events.expect, number=1, count=0, timeout=0)[0] == (
        f"expected 0 records with number=1 {FROM}: 1 of 1 captured records matched in 0 s"
    )


def test_unexpected_records(events, send):
    send(*[7] * 7)
    lines = message_of(events.expect_none, number=7, within=0)
    assert lines == [f"expected no record with number=7 {FROM}: 7 came", *shown(7, 7, 7, 7, 7)]


def test_values_that_functions_should_accept(events, send):
    send(1)

    def odd_enough(number):
        return number > 7

    lines = message_of(events.expect, number=odd_enough, timeout=0)
    assert lines[2] == "      number is 1, not odd_enough"


def test_bytes_in_the_wrong_order(events, send):
    send(1)
    lines = message_of(events.expect, port=80 << 8, timeout=0)
    assert lines[2].startswith("      port is 80, not 20480 (")


def test_a_capture_as_a_sequence(events, send):
    send(1, 2, 3)
    assert events.lost == 0
    assert [e.number for e in events[-2:]] == [2, 3]
    assert events[-3].number == 1
    for index in (3, -4, 300):
        with pytest.raises(IndexError, match=f"^no record {index} from map 'events' .*: 3 were captured$"):
            _ = events[index]
    records = [{"number": n, "port": 80, "size": 0} for n in (1, 2, 3)]
    assert events == records
    assert events == tuple(records)
    assert not events == records[:2]  # noqa: SIM201
    assert not events == {1: 2}  # noqa: SIM201
    assert events == events  # noqa: PLR0124
    assert len({events, events}) == 1


def test_after_the_capture(sender, send):
    with sender.maps.events.capture("event") as events:
        send(1)
    events.close()
    ended = "  -> the capture has ended: expect records inside its 'with' block"
    assert message_of(events.wait, 2, timeout=600)[-1] == ended
    assert message_of(events.expect, number=2, timeout=600)[-1] == ended
    events.expect_none(number=2, within=600)
    assert events.lost == 0


def test_a_full_buffer(sender, send):
    with sender.maps.events.capture("event") as events:
        for _ in range(4096 // 16):
            sender.programs.send.run(bytes(64))
        full = "  -> the ring buffer was full, so the program may have lost records; "
        full += "give it a larger max_entries"
        assert message_of(events.wait, 1000, timeout=0)[-1] == full
        assert message_of(events.expect, number=9, timeout=0)[-1] == full
        with pytest.raises(NoValueError, match="cannot count the lost records from map 'events'"):
            _ = events.lost


def test_what_a_full_buffer_lost_is_not_known(sender, send):
    with sender.maps.events.capture("event") as events:
        sent = [sender.programs.send.run(bytes(64), ctx={"mark": n}).retval for n in range(4096 // 16)]
        assert sent.count(0) < len(sent), "the last ones had no room"
        assert events.expect(number=1)[0].number == 1
        last = len(sent) - 1
        expected = f"cannot know that no record with number={last} came {FROM}: not all records came here"
        assert message_of(events.expect_none, number=last, within=0)[0] == expected
        assert message_of(events.expect, number=last, count=0, timeout=0)[0].startswith(
            "cannot know that no more"
        )
        assert message_of(events.expect, number=1, count=1, timeout=0)[0].startswith(
            "cannot know that no more"
        )


def test_what_was_lost_before_the_capture_does_not_matter(sender, send):
    for _ in range(4096 // 16):
        sender.programs.send.run(bytes(64))
    with sender.maps.events.capture("event") as events:
        send(1)
        events.expect(number=1, count=1)
        events.expect_none(number=2, within=0)
        assert events.lost == 0


def test_records_that_a_function_chooses(events, send):
    send(1, 2, 3, 4)
    assert [e.number for e in events.wait(2, match=lambda e: e.number % 2 == 0)] == [2, 4]
    assert events.wait(0, timeout=600, match=lambda e: e.number > 4) == []
    lines = message_of(events.wait, 3, timeout=0, match=lambda e: e.number % 2 == 0)
    assert lines[0] == f"waited 0 s for 3 records {FROM}: 2 of 4 captured records fit"
    assert lines[1:5] == shown(1, 2, 3, 4)


def test_a_buffer_that_was_almost_full(sender, send):
    with sender.maps.events.capture("event") as events:
        send(*range(4096 // 16 - 2))
        assert len(events) == 4096 // 16 - 2
        send(*range(3))
        assert events.lost == 0


def test_buffers_without_types(bpf):
    ring = bpf.create_map("ringbuf", max_entries=4096)
    for types in ({}, {"type": {0: "event"}, "tag": "number"}):
        with pytest.raises(NameLookupError, match=r"the records of map 'ringbuf' .*there is no BTF"):
            ring.capture(**types)
    with ring.capture(bytes) as records:
        assert records == []


def sleeps():
    """Returns how often this thread has given the processor away to wait for something."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def test_a_wait_sleeps(events):
    before = sleeps()
    message_of(events.wait, timeout=0.5)
    assert sleeps() - before >= 3


@pytest.mark.bpf_requires("perf_event_array")
def test_a_wait_for_perf_buffers_sleeps(bpf):
    with bpf.load("perf_events.bpf.c").maps.events.capture() as events:
        before = sleeps()
        message_of(events.wait, timeout=0.5)
        assert sleeps() - before >= 3
