"""Tests capturing ring buffer records: order, waiting, expectations, near misses."""

import errno
import resource
import threading
import time
import warnings
from contextlib import closing
from pathlib import Path

import pytest

from pytest_bpfmaps import CaptureTimeoutError, MapError, NameLookupError, NoValueError
from pytest_bpfmaps.events.ringbuf_reader import Ring

SENDER = """
struct event { __u32 kind; __u32 number; char comm[8]; };
struct note { __u8 text[24]; };
__u32 kind = 1;

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");

SEC("xdp") int send(struct xdp_md *ctx)
{
    struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (!event)
        return XDP_DROP;
    event->kind = kind;
    event->number = ctx->data_end - ctx->data;
    __builtin_memcpy(event->comm, "sender", 7);
    bpf_ringbuf_submit(event, 0);
    return XDP_PASS;
}

SEC("xdp") int send_quietly(struct xdp_md *ctx)
{
    struct event event = {.kind = kind, .number = ctx->data_end - ctx->data};
    bpf_ringbuf_output(&events, &event, sizeof(event), BPF_RB_NO_WAKEUP);
    return XDP_PASS;
}

SEC("xdp") int take_back(struct xdp_md *ctx)
{
    struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (event)
        bpf_ringbuf_discard(event, 0);
    return XDP_PASS;
}

SEC("xdp") int send_note(struct xdp_md *ctx)
{
    struct note note = {.text = {1, 2, 3}};
    bpf_ringbuf_output(&events, &note, sizeof(note), 0);
    return XDP_PASS;
}

SEC("xdp") int send_little(struct xdp_md *ctx)
{
    __u32 little = 9;
    bpf_ringbuf_output(&events, &little, sizeof(little), 0);
    return XDP_PASS;
}
"""


@pytest.fixture
def sender(load_code):
    return load_code(SENDER)


def send(sender, *sizes, program="send"):
    for size in sizes:
        sender.programs[program].run(bytes(size))


def test_records_come_in_order_and_stay(sender):
    with sender.maps.events.capture() as events:
        send(sender, 14, 15, 16)
        assert [e.number for e in events] == [14, 15, 16]
        send(sender, 17)
        assert len(events) == 4
    send(sender, 18)
    assert [e.number for e in events] == [14, 15, 16, 17]
    assert events[0] == {"kind": 1, "number": 14, "comm": "sender"}
    assert events[-1].number == 17
    assert [e.number for e in events[1:3]] == [15, 16]
    with pytest.raises(IndexError, match=r"no record 9 from map 'events'"):
        _ = events[9]


def test_a_capture_shows_what_is_in_the_buffer(sender):
    with sender.maps.events.capture() as events:
        send(sender, 14, 15)
        assert repr(events) == (
            "[{'kind': 1, 'number': 14, 'comm': 'sender'}, {'kind': 1, 'number': 15, 'comm': 'sender'}]"
        )


@pytest.mark.parametrize(("way", "wanted"), [("expect", {"number": 14}), ("wait", {"count": 2})])
def test_what_is_met_does_not_wait(sender, way, wanted):
    with sender.maps.events.capture() as events:
        send(sender, 14, 15, 16)
        wait = getattr(events, way)
        waiting = threading.Thread(target=wait, kwargs={**wanted, "timeout": 600}, daemon=True)
        waiting.start()
        waiting.join(60)
        assert not waiting.is_alive()


def test_what_was_sent_before_is_not_captured(sender):
    send(sender, 14)
    with sender.maps.events.capture() as events:
        send(sender, 15)
        assert [e.number for e in events] == [15]


def test_a_ring_whose_memory_can_not_be_written(bpf):
    ring = bpf.create_map("ringbuf", max_entries=4096)
    ring.freeze()
    with pytest.raises(
        MapError, match=r"cannot map the memory of map 'ringbuf' \(ringbuf\): EPERM"
    ) as refused:
        ring.capture(bytes)
    assert refused.value.errno == errno.EPERM


@pytest.mark.parametrize("tap", [False, True])
def test_a_ring_that_this_process_has_no_room_for(bpf, tap):
    ring = bpf.create_map("ringbuf", max_entries=1 << 26)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 26), limits[1]))
    try:
        with pytest.raises(MapError, match="cannot map the memory of map 'ringbuf'") as refused:
            ring.capture(bytes, tap=tap)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert refused.value.errno == errno.ENOMEM
    with ring.capture(bytes, tap=tap) as records:
        assert records == []


class TestAnEndThatFails:
    """The warning about another reader is an error here. It must not hide the test's own error."""

    @pytest.fixture
    def robbed(self, sender):
        the_map = sender.maps.events
        events = the_map.capture()
        with closing(Ring(the_map.fd, the_map.max_entries, "another", the_map.id)) as other:
            send(sender, 14)
            assert len(list(other.drain())) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield events
        events.close()

    def test_after_a_good_test(self, robbed):
        with pytest.raises(UserWarning, match="not all records from map 'events'"), robbed:
            pass

    def test_after_an_error(self, robbed):
        with pytest.raises(ZeroDivisionError) as failed, robbed:
            _ = 1 / 0
        (note,) = failed.value.__notes__
        assert note.startswith("and the capture could not be ended: not all records from map 'events'")


def test_more_records_than_the_buffer_holds_at_once(sender):
    with sender.maps.events.capture() as events:
        for _ in range(10):
            send(sender, *range(14, 64))
            len(events)
    assert [e.number for e in events] == list(range(14, 64)) * 10


def test_discarded_records_do_not_show(sender):
    with sender.maps.events.capture() as events:
        send(sender, 14)
        send(sender, 14, program="take_back")
        send(sender, 15)
        assert [e.number for e in events] == [14, 15]


@pytest.mark.parametrize("program", ["send", "send_quietly"])
def test_wait_sees_what_another_thread_causes(sender, program):
    def later():
        time.sleep(0.05)
        send(sender, 14, 15, program=program)

    with sender.maps.events.capture() as events:
        thread = threading.Thread(target=later)
        thread.start()
        assert [e.number for e in events.wait(count=2, timeout=60)] == [14, 15]
        thread.join()


def test_wait_in_vain_lists_what_came(sender):
    with sender.maps.events.capture() as events:
        send(sender, 14)
        with pytest.raises(
            CaptureTimeoutError, match=r"(?s)waited 0.02 s .*for 2 records from map 'events'.*1 came"
        ) as caught:
            events.wait(count=2, timeout=0.02)
    assert isinstance(caught.value, AssertionError)
    assert "'number': 14" in str(caught.value)


def test_expect_gives_the_matching_records(sender):
    with sender.maps.events.capture() as events:
        send(sender, 14, 15, 14)
        assert len(events.expect(number=14, count=2)) == 2
        assert events.expect(number=lambda n: n > 14) == [{"kind": 1, "number": 15, "comm": "sender"}]
        assert len(events.expect(comm="sender", count=3)) == 3


def test_a_missed_expectation_shows_the_closest_first(sender):
    with sender.maps.events.capture() as events:
        send(sender, 14, 15)
        sender.globals.kind = 2
        send(sender, 16)
        with pytest.raises(AssertionError) as caught:
            events.expect(kind=2, number=15, comm="sender", timeout=0.02)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(
        "expected a record with kind=2, number=15, comm='sender' from map 'events' (ringbuf)"
    )
    assert "number is 16, not 15" in str(caught.value)
    assert lines[1].startswith("  [1]")
    assert "kind is 1, not 2" in lines[2]
    assert "kind is 1, not 2, number is 14, not 15" in lines[6]


def test_one_record_too_many_is_a_failure(sender):
    with sender.maps.events.capture() as events:
        send(sender, 14, 14)
        with pytest.raises(
            AssertionError, match=r"(?s)expected 1 record with number=14 .*2 of 2 captured records matched"
        ):
            events.expect(number=14, count=1)


def test_expect_none(sender):
    with sender.maps.events.capture() as events:
        events.expect_none(within=0.02)
        send(sender, 14)
        events.expect_none(number=15, within=0.02)
        with pytest.raises(
            AssertionError, match=r"(?s)expected no record with number=14 .*1 came.*'number': 14"
        ):
            events.expect_none(number=14, within=0.02)


def test_expectations_after_the_capture_use_what_was_captured(sender):
    with sender.maps.events.capture() as events:
        send(sender, 14)
    assert events.expect(number=14)
    with pytest.raises(AssertionError, match="the capture has ended"):
        events.expect(number=15)


def test_records_of_a_named_type(sender):
    with sender.maps.events.capture("note") as notes:
        send(sender, 14, program="send_note")
        notes.wait()
    assert notes[0].text == b"\1\2\3" + bytes(21)


def test_unknown_names(sender):
    with pytest.raises(NameLookupError, match=r"(?s)no struct 'evnt' in the object.*did you mean 'event'"):
        sender.maps.events.capture("evnt")
    with sender.maps.events.capture() as events, pytest.raises(KeyError, match="did you mean 'number'"):
        events.expect(nmber=3)


def test_a_record_too_short_for_its_type(sender):
    with sender.maps.events.capture() as events:
        send(sender, 14, program="send_little")
        assert events[0].kind == 9
        with pytest.raises(NoValueError, match=r"'number' of a record of 4 bytes: .*did not send"):
            _ = events[0].number


def test_the_declared_value_type_is_the_records_type(load_code):
    code = SENDER.replace("4096);", "4096);\n    __type(value, struct note);")
    sender = load_code(code)
    with sender.maps.events.capture() as notes:
        send(sender, 14, program="send_note")
        assert notes[0].text[:3] == b"\1\2\3"


def test_without_a_fitting_struct_the_message_says_how_to_name_one(load_code):
    sender = load_code(SENDER.replace("struct event", "struct happening"))
    with pytest.raises(
        NameLookupError, match=r"(?s)declares no value type .*capture\('my_struct'\).*happening"
    ):
        sender.maps.events.capture()


OVERWRITING = """
struct event { __u32 number; __u32 size; };
struct event *e;
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
    __uint(map_flags, 1 << 19);  // BPF_F_RB_OVERWRITE
} ring SEC(".maps");
__u8 bytes[2048];
SEC("tc") int send(struct __sk_buff *skb)
{
    __u32 size = 8 + skb->priority;

    if (size > sizeof(bytes))
        return -1;
    *(__u32 *)bytes = skb->mark;
    *(__u32 *)(bytes + 4) = size;
    return bpf_ringbuf_output(&ring, bytes, size, 0);
}
"""


class TestOverwriting:
    """With BPF_F_RB_OVERWRITE the buffer has the newest records, however many came."""

    @pytest.fixture
    def ring(self, bpf, load_code):
        try:
            bpf.create_map("ringbuf", max_entries=4096, flags=1 << 19)
        except MapError as e:
            assert "BPF_F_RB_OVERWRITE, Linux 6.19" in str(e)  # noqa: PT017  this kernel has not got it
            pytest.skip(f"{e.why}, which is BPF_F_RB_OVERWRITE (Linux 6.19): try --bpf-kernel=7.2")
        obj = load_code(OVERWRITING)

        def send(number, more=0):
            assert obj.programs.send.run(bytes(64), ctx={"mark": number, "priority": more}).retval == 0

        obj.maps.ring.send = send
        return obj.maps.ring

    def test_the_newest_are_there(self, ring):
        with ring.capture("event") as events:
            for number in range(1000):
                ring.send(number)
            numbers = [e.number for e in events]
            assert numbers == list(range(1000 - len(numbers), 1000))
            assert 4096 // 16 - 1 <= len(numbers) <= 4096 // 16
            for number in range(2000, 2003):
                ring.send(number)
            assert [e.number for e in events][len(numbers) :] == [2000, 2001, 2002]

    def test_records_of_all_sizes(self, ring):
        sizes = [(7 * n * n) % 900 for n in range(200)]
        with ring.capture("event") as events:
            for number, more in enumerate(sizes):
                ring.send(number, more)
                if number % 37 == 0:
                    assert events[-1] == {"number": number, "size": more + 8}
            last = [e.number for e in events][-3:]
        assert last == [197, 198, 199]
        assert all(e.size == sizes[e.number] + 8 for e in events)
        assert [e.number for e in events] == sorted({e.number for e in events})

    def test_without_a_loss_it_is_as_any(self, ring):
        with ring.capture("event") as events:
            ring.send(1)
            ring.send(2)
            events.expect(number=1, count=1)
            events.expect_none(number=3, within=0.01)
        assert [e.number for e in events] == [1, 2]

    def test_what_was_overwritten_is_not_known(self, ring):
        with ring.capture("event") as events:
            for number in range(600):
                ring.send(number)
            with pytest.raises(CaptureTimeoutError, match=r"have overwritten \d+ bytes of older ones"):
                events.expect(number=1, timeout=0.01)
            with pytest.raises(CaptureTimeoutError, match="cannot know that no record with number=1 came"):
                events.expect_none(number=1, within=0.01)
