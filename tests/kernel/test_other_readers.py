"""Tests buffers with other readers: missing records are reported, and captures of a process share them."""

import subprocess
import sys
import textwrap
import warnings

import pytest

from pytest_bpfmaps import CaptureTimeoutError

CODE = """
struct event { __u32 number; };
struct event *e;
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} ring SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
    __uint(key_size, 4);
    __uint(value_size, 4);
} perf SEC(".maps");
SEC("tc") int send(struct __sk_buff *skb)
{
    struct event event = {skb->mark};

    return bpf_ringbuf_output(&ring, &event, sizeof(event), 0);
}
SEC("tc") int report(struct __sk_buff *skb)
{
    struct event event = {skb->mark};

    return bpf_perf_event_output(skb, &perf, BPF_F_CURRENT_CPU, &event, sizeof(event));
}
"""
FRAME = bytes(64)
# readers of libbpf, without this package
READER = """
    import ctypes, os, sys

    kind, map_id, said = sys.argv[1], int(sys.argv[2]), sys.stdout
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    for name in ("ring_buffer__new", "perf_buffer__new"):
        getattr(libbpf, name).restype = ctypes.c_void_p
    fd = libbpf.bpf_map_get_fd_by_id(map_id)
    ring_fn = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    perf_fn = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)
    taken = 0
    def took(*arguments):
        global taken
        taken += 1
        return 0
    if kind == "ring":
        callback = ring_fn(took)
        reader = libbpf.ring_buffer__new(fd, callback, None, None)
        read = libbpf.ring_buffer__consume
    else:
        callback = perf_fn(took)
        new = libbpf.perf_buffer__new
        new.argtypes = [ctypes.c_int, ctypes.c_size_t, perf_fn] + [ctypes.c_void_p] * 3
        reader = new(fd, 8, callback, None, None, None)
        read = libbpf.perf_buffer__consume
    read.argtypes = [ctypes.c_void_p]
    assert reader
    print("ready", flush=True)
    for _ in sys.stdin:
        read(reader)
        print(taken, flush=True)
"""

pytestmark = pytest.mark.bpf_requires("ringbuf")


@pytest.fixture
def sender(load_code):
    obj = load_code(CODE)

    def send(*numbers, by="send"):
        for number in numbers:
            assert obj.programs[by].run(FRAME, ctx={"mark": number}).retval == 0

    obj.send = send
    return obj


@pytest.fixture
def start_reader():
    started = []

    def start(kind, the_map):
        command = [sys.executable, "-c", textwrap.dedent(READER), kind, str(the_map.id)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdout.readline() == "ready\n"

        def read():
            child.stdin.write("\n")
            child.stdin.flush()
            return int(child.stdout.readline())

        child.read = read
        return child

    yield start
    for child in started:
        child.stdin.close()
        child.wait()
        child.stdout.close()


class TestAnotherProcess:
    @pytest.fixture
    def robbed(self, sender, start_reader):
        child = start_reader("ring", sender.maps.ring)
        events = sender.maps.ring.capture("event")
        sender.send(1, 2, 3)
        assert child.read() == 3
        yield events, child, sender
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the test may have warned already
            events.close()

    def test_wait_and_expect_name_it(self, robbed):
        events, child, _ = robbed
        for look in (lambda: events.wait(5, timeout=0.01), lambda: events.expect(number=2, timeout=0.01)):
            with pytest.raises(CaptureTimeoutError) as failed:
                look()
            assert f"process {child.pid} (" in str(failed.value)
            assert "reads this ring buffer, too, and took 48 bytes" in str(failed.value)

    def test_nobody_can_say_that_nothing_came(self, robbed):
        events, child, _ = robbed
        looks = [
            lambda: events.expect_none(number=2, within=0.01),
            lambda: len(events),
            lambda: events[0],
            lambda: list(events),
            lambda: events == [],
        ]
        for look in looks:
            with pytest.raises(CaptureTimeoutError, match=f"process {child.pid}"):
                look()

    def test_what_came_counts(self, robbed):
        events, child, sender = robbed
        sender.send(4)
        assert [e.number for e in events.expect(number=4)] == [4]
        with pytest.raises(CaptureTimeoutError, match=f"process {child.pid}"):
            events.expect(number=4, count=1)

    def test_at_the_end_it_is_a_warning(self, sender, start_reader):
        child = start_reader("ring", sender.maps.ring)
        events = sender.maps.ring.capture("event")
        sender.send(1)
        child.read()
        with pytest.warns(UserWarning, match=f"not all records from map 'ring' .*process {child.pid}"):
            events.close()

    def test_one_that_takes_nothing_is_no_harm(self, sender, start_reader):
        child = start_reader("ring", sender.maps.ring)
        with sender.maps.ring.capture("event") as events:
            sender.send(1, 2)
            assert [e.number for e in events] == [1, 2]
            assert child.read() == 0
            events.expect_none(number=3, within=0.01)

    @pytest.mark.bpf_requires("perf_event_array")
    def test_perf_buffers(self, sender, start_reader):
        with sender.maps.perf.capture("event") as events:
            sender.send(1, by="report")
            events.expect(number=1)
            child = start_reader("perf", sender.maps.perf)
            sender.send(2, by="report")
            assert child.read() == 1
            with pytest.raises(CaptureTimeoutError, match=f"process {child.pid} .* perf buffers there, too"):
                events.expect(number=2, timeout=0.01)
            with pytest.raises(CaptureTimeoutError, match=f"process {child.pid}"):
                events.expect_none(number=2, within=0.01)


@pytest.mark.parametrize(("name", "by"), [("ring", "send"), ("perf", "report")])
class TestThisProcess:
    def test_each_capture_gets_every_record(self, sender, name, by):
        the_map = sender.maps[name]
        with the_map.capture("event") as first:
            sender.send(1, by=by)
            with the_map.capture("event") as second:
                sender.send(2, by=by)
                assert [e.number for e in second.wait(1)] == [2]
                assert [e.number for e in first.wait(2)] == [1, 2]
            sender.send(3, by=by)
            assert [e.number for e in first.wait(3)] == [1, 2, 3]
        assert [e.number for e in second] == [2]

    def test_the_first_may_end_first(self, sender, name, by):
        the_map = sender.maps[name]
        first, second = the_map.capture("event"), the_map.capture(bytes)
        first.close()
        sender.send(5, by=by)
        assert second.wait(1)[0][:4] == b"\5\0\0\0"
        second.close()
        assert len(first) == 0

    def test_one_that_was_forgotten(self, sender, name, by):
        sender.maps[name].capture("event")
        sender.send(5, by=by)
        with sender.maps[name].capture("event") as events:
            sender.send(6, by=by)
            assert [e.number for e in events.wait(1)] == [6]
