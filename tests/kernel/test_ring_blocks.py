"""Tests many records of ring buffers at once: equal and different lengths, arrays, flexible arrays."""

import random
from contextlib import closing

import pytest

from pytest_bpfmaps import NoValueError
from pytest_bpfmaps.events.ringbuf_reader import Ring

EVENT = 24  # bytes of a struct event

SENDER = """
struct event { __u64 number; __u32 pid; __u16 flags:4, rest:12; char comm[6]; };
struct text { __u32 length; char text[]; };
__u64 number;
struct text *keeps_its_type;

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 16);
} events SEC(".maps");

SEC("xdp") int send(struct xdp_md *ctx)
{
    struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (!event)
        return XDP_ABORTED;
    event->number = number++;
    event->pid = 7;
    event->flags = 5;
    event->rest = 0;
    __builtin_memcpy(event->comm, "bulk\\0", 6);
    bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
    return XDP_PASS;
}

SEC("xdp") int send_longer(struct xdp_md *ctx)
{
    struct { struct event event; __u64 more[2]; } longer = {.event = {.number = number++, .pid = 8}};
    bpf_ringbuf_output(&events, &longer, sizeof(longer), BPF_RB_NO_WAKEUP);
    return XDP_PASS;
}

SEC("xdp") int take_back(struct xdp_md *ctx)
{
    struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (event)
        bpf_ringbuf_discard(event, BPF_RB_NO_WAKEUP);
    return XDP_PASS;
}

SEC("xdp") int send_text(struct xdp_md *ctx)
{
    struct { struct text head; char text[8]; } text = {.head = {5}, .text = "hello"};
    bpf_ringbuf_output(&events, &text, 4 + 5, BPF_RB_NO_WAKEUP);
    return XDP_PASS;
}
"""


@pytest.fixture
def sender(load_code):
    return load_code(SENDER)


def test_a_thousand_records_in_one_array(sender):
    np = pytest.importorskip("numpy")
    with sender.maps.events.capture() as events:
        sender.programs.send.run(bytes(64), repeat=1000)
        array = events.to_numpy()
        assert array["number"].tolist() == list(range(1000))
        assert set(array["pid"].tolist()) == {7}
        assert array["comm"][999] == b"bulk"
        assert array.dtype.names == ("number", "pid", "comm")  # bitfields have no byte address
        sender.programs.send.run(bytes(64), repeat=500)
        assert len(events.to_numpy()) == 1500
    assert np.array_equal(events.to_numpy()["number"], np.arange(1500))
    assert [e.number for e in events] == list(range(1500))
    assert (events[700].number, events[-1].number, events[1000].flags) == (700, 1499, 5)


def test_the_end_of_the_memory_is_crossed_many_times(sender):
    with sender.maps.events.capture() as events:
        for _ in range(20):
            sender.programs.send.run(bytes(64), repeat=700)
            len(events)
    assert [e.number for e in events] == list(range(14000))


def test_runs_are_broken_by_other_lengths_and_by_what_was_taken_back(sender):
    chosen = random.Random(1).choices(["send", "send_longer", "take_back"], weights=[8, 1, 1], k=800)
    with sender.maps.events.capture() as events:
        for name in chosen:
            sender.programs[name].run(bytes(64))
    pids = {"send": 7, "send_longer": 8}
    assert [e.pid for e in events] == [pids[name] for name in chosen if name in pids]
    assert [e.number for e in events] == list(range(len(events)))
    pytest.importorskip("numpy")
    assert events.to_numpy()["number"].tolist() == list(range(len(events)))


def test_no_records_make_an_empty_array(sender):
    pytest.importorskip("numpy")
    with sender.maps.events.capture() as events:
        assert events.to_numpy().shape == (0,)


def test_a_flexible_array_has_the_rest_of_its_record(sender):
    with sender.maps.events.capture("text") as texts:
        sender.programs.send_text.run(bytes(64), repeat=3)
    assert texts == [{"length": 5, "text": "hello"}] * 3


def test_another_reader_between_two_blocks_is_noticed(sender):
    the_map = sender.maps.events
    for name in ("send", "send_longer", "send", "send"):
        sender.programs[name].run(bytes(64))
    rings = [Ring(the_map.fd, the_map.max_entries, "the ring", the_map.id) for _ in range(2)]
    with closing(rings[0]) as mine, closing(rings[1]) as other:
        blocks = mine.blocks()
        assert next(blocks).size == EVENT
        assert [len(raw) for raw in other.drain()] == [EVENT + 16, EVENT, EVENT]
        list(blocks)
        assert mine.taken > 0
        assert mine.others().endswith(f"this ring buffer, too, and took {mine.taken} bytes")


def test_readers_one_after_another(sender):
    the_map = sender.maps.events
    rings = [Ring(the_map.fd, the_map.max_entries, "the ring", the_map.id) for _ in range(2)]
    with closing(rings[0]) as mine, closing(rings[1]) as other:
        for reader, taken in ((mine, 0), (other, 1), (other, 1), (mine, 2), (mine, 2)):
            sender.programs.send.run(bytes(64))
            assert [len(raw) for raw in reader.drain()] == [EVENT]
            assert reader.taken == taken * (EVENT + 8)
    mine.close()


OF_ANY_SIZE = """
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} ring SEC(".maps");
__u8 bytes[2048];
SEC("tc") int send(struct __sk_buff *skb)
{
    __u32 size = skb->mark;

    if (size > sizeof(bytes))
        return -1;
    return bpf_ringbuf_output(&ring, bytes, size, 0);
}
"""


class TestIsItFull:
    """It was if one more record as long as the oldest one would have found no room."""

    @pytest.fixture
    def obj(self, load_code):
        return load_code(OF_ANY_SIZE)

    @staticmethod
    def send(obj, *sizes):
        for size in sizes:
            assert obj.programs.send.run(bytes(64), ctx={"mark": size}).retval == 0

    @staticmethod
    def drain(the_map):
        with closing(Ring(the_map.fd, the_map.max_entries, "the ring", the_map.id)) as other:
            return len(list(other.drain()))

    @pytest.mark.parametrize("tap", [False, True])
    @pytest.mark.parametrize(("more", "full"), [(129, False), (130, True)])
    def test_the_oldest_is_long(self, obj, tap, more, full):
        ring = obj.maps.ring
        self.send(obj, 8, 8, 8)
        assert self.drain(ring) == 3
        with ring.capture(bytes, tap=tap) as records:
            self.send(obj, 1000, *[8] * more)  # 1008 bytes, and 16 bytes for each of the others
            assert [len(raw) for raw in records] == [1000] + [8] * more
            if full:
                with pytest.raises(NoValueError, match="the buffer was full"):
                    _ = records.lost
            else:
                assert records.lost == 0

    def test_who_only_asks_for_losses_hears_of_it(self, obj):
        with obj.maps.ring.capture(bytes) as records:
            self.send(obj, *[8] * 255)
            with pytest.raises(NoValueError, match="the buffer was full"):
                _ = records.lost

    def test_what_was_read_is_not_in_the_way(self, obj):
        ring = obj.maps.ring
        with ring.capture(bytes, tap=True) as records:
            for count in (200, 400, 600):
                self.send(obj, *[8] * 200)
                assert len(records) == count  # else the next records may overwrite these first
                assert self.drain(ring) == 200
            assert records.lost == 0
            self.send(obj, *[8] * 255)
            assert len(records) == 855
            with pytest.raises(NoValueError, match="the buffer was full"):
                _ = records.lost
