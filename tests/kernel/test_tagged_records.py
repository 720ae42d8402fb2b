"""Tests records of several types in one buffer, several captures at once, and failed expectations."""

import pytest

from pytest_bpfmaps import CaptureTimeoutError, MapValueError, NameLookupError, NoValueError, UnsupportedError

CODE = """
enum kind { OPENED, CLOSED, UNKNOWN = 7 };
struct open_event { __u32 kind; __u32 pid; char path[16]; };
struct exit_event { __u32 kind; __u32 pid; long code; };
struct named_event { enum kind kind; __u32 pid; };
struct other_event { __u32 pid; __u32 kind; };
struct timed_event { enum kind kind; __u32 timeout; };
// types that nothing else uses are left out of BTF
struct open_event o; struct exit_event e; struct named_event n; struct other_event x;
struct timed_event t;
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps"), more SEC(".maps");
__u32 kind;

SEC("xdp") int send(struct xdp_md *ctx)
{
    struct open_event open = {.kind = kind, .pid = 1, .path = "/dev/null"};
    struct exit_event exit = {.kind = kind, .pid = 2, .code = -3};
    if (kind == CLOSED)
        return bpf_ringbuf_output(&events, &exit, sizeof(exit), 0);
    return bpf_ringbuf_output(&events, &open, sizeof(open), 0);
}
SEC("xdp") int send_more(struct xdp_md *ctx)
{
    struct exit_event exit = {.kind = CLOSED, .pid = 4};
    return bpf_ringbuf_output(&more, &exit, sizeof(exit), 0);
}
SEC("xdp") int silent(struct xdp_md *ctx)
{
    return ctx->data_end - ctx->data > 1000 ? bpf_ringbuf_output(&events, &kind, 4, 0) : 2;
}
"""
FRAME = bytes(64)
TYPES = {0: "open_event", 1: "exit_event"}

pytestmark = pytest.mark.bpf_requires("ringbuf")


@pytest.fixture
def sender(load_code):
    obj = load_code(CODE)

    def send(kind):
        obj.globals.kind = kind
        assert obj.programs.send.run(FRAME).retval == 0

    obj.send = send
    return obj


def test_each_record_has_the_type_of_its_tag(sender):
    with sender.maps.events.capture(TYPES, tag="kind") as events:
        for kind in (0, 1, 0):
            sender.send(kind)
    assert events == [
        {"kind": 0, "pid": 1, "path": "/dev/null"},
        {"kind": 1, "pid": 2, "code": -3},
        {"kind": 0, "pid": 1, "path": "/dev/null"},
    ]


def test_expectations_name_fields_of_any_type(sender):
    with sender.maps.events.capture(TYPES, tag="kind") as events:
        sender.send(0)
        sender.send(1)
        events.expect(code=-3, count=1)
        events.expect(path="/dev/null", count=1)
        events.expect(kind=1, pid=2)
        with pytest.raises(NameLookupError, match=r"'paht'(.*\n)*.*'path'"):
            events.expect(paht="x")
        with pytest.raises(CaptureTimeoutError, match="path is not there, not '/dev/zero'"):
            events.expect(path="/dev/zero", pid=2, timeout=0.01)


def test_a_tag_can_be_given_by_its_enumerator(sender):
    types = {"OPENED": "open_event", "CLOSED": "exit_event"}
    with sender.maps.events.capture({**types, "UNKNOWN": "named_event"} | types, tag="kind") as events:
        sender.send(1)
        with pytest.raises(MapValueError, match="whose kind is 1"):
            list(events)  # the first struct's kind is a plain number
    with sender.maps.events.capture({"CLOSED": "named_event"}, tag="kind") as events:
        sender.send(1)
    assert events[0].pid == 2
    assert events[0].kind.name == "CLOSED"


def test_a_tag_that_stands_for_nothing(sender):
    with sender.maps.events.capture(TYPES, tag="kind") as events:
        sender.send(7)
    with pytest.raises(
        MapValueError, match=r"whose kind is 7: no struct is given for it\n.*0: struct open_event"
    ):
        list(events)


def test_what_can_not_be_told_apart(sender):
    capture = sender.maps.events.capture
    with pytest.raises(
        MapValueError, match=r"at different offsets: struct open_event at 0.*struct other_event at 4"
    ):
        capture({0: "open_event", 1: "other_event"}, tag="kind")
    with pytest.raises(NameLookupError, match="no field 'code' in struct open_event"):
        capture(TYPES, tag="code")
    with pytest.raises(MapValueError, match="no tag is named"):
        capture(TYPES)
    with pytest.raises(NameLookupError, match="one struct is given"):
        capture("open_event", tag="kind")
    with pytest.raises(NameLookupError, match="open_evnt"):
        capture({0: "open_evnt"}, tag="kind")


def test_messages_name_the_tag(sender):
    pytest.importorskip("numpy")
    with sender.maps.events.capture(TYPES, tag="kind") as events:
        sender.send(1)
        with pytest.raises(UnsupportedError, match="an array of records told apart by 'kind': NumPy has no"):
            events.to_numpy()
    with sender.maps.events.capture({"CLOSED": "timed_event"}, tag="kind") as events:
        sender.send(1)
        with pytest.raises(NameLookupError, match="an argument, and a field of records told apart by 'kind'"):
            events.expect(timeout=3.0)
        assert len(events.expect({"timeout": 2}, timeout=3.0)) == 1


def test_a_tag_in_a_nested_struct(load_code):
    obj = load_code("""
    struct head { __u32 length, kind; };
    struct name { __u32 pid; struct head hdr; char text[4]; };
    struct number { __u32 pid; struct head hdr; int n; };
    struct other { struct head hdr; };
    struct name *a; struct number *b; struct other *c;
    struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
    SEC("tc") int send(struct __sk_buff *skb)
    {
        struct number number = {.pid = 7, .hdr = {.length = 2, .kind = skb->mark}, .n = 0x4241};
        return bpf_ringbuf_output(&events, &number, sizeof(number), 0);
    }
    """)
    with obj.maps.events.capture({1: "name", 2: "number"}, tag="hdr.kind") as events:
        for kind in (1, 2):
            assert obj.programs.send.run(FRAME, ctx={"mark": kind}).retval == 0
    assert events == [
        {"pid": 7, "hdr": (2, 1), "text": "AB"},
        {"pid": 7, "hdr": (2, 2), "n": 0x4241},
    ]
    with pytest.raises(MapValueError, match="struct name at 8, 4 bytes, struct other at 4, 4 bytes"):
        obj.maps.events.capture({1: "name", 2: "other"}, tag="hdr.kind")


def test_several_captures_at_once(sender):
    with (
        sender.maps.events.capture(TYPES, tag="kind") as events,
        sender.maps.more.capture("exit_event") as more,
    ):
        sender.send(0)
        sender.programs.send_more.run(FRAME)
        assert [e.pid for e in more.wait()] == [4]
        assert [e.pid for e in events.wait()] == [1]


class TestFailedExpectations:
    def test_the_program_did_not_run(self, sender):
        with sender.maps.events.capture("open_event") as events, pytest.raises(CaptureTimeoutError) as failed:
            events.expect(pid=1, timeout=0.01)
        assert "program 'send' is not attached, and ran 0 times since the capture began" in str(failed.value)

    def test_the_program_ran_and_sent_nothing(self, sender):
        with sender.maps.events.capture("open_event") as events:
            for _ in range(3):
                sender.programs.silent.run(FRAME)
            with pytest.raises(CaptureTimeoutError) as failed:
                events.wait(timeout=0.01)
        assert "program 'silent' ran 3 times since the capture began, but sent nothing that fits" in str(
            failed.value
        )
        assert "send_more" not in str(failed.value), "it writes to another buffer"

    def test_runs_before_the_capture_do_not_count(self, sender):
        with sender.maps.events.capture("open_event"):
            sender.programs.silent.run(FRAME)
        with (
            sender.maps.events.capture("open_event") as events,
            pytest.raises(CaptureTimeoutError, match="program 'silent' is not attached, and ran 0 times"),
        ):
            events.wait(timeout=0.01)

    def test_a_full_ring_buffer_is_named(self, sender):
        with sender.maps.events.capture("open_event") as events:
            for _ in range(200):
                sender.programs.send.run(FRAME)
            with pytest.raises(CaptureTimeoutError, match="the ring buffer was full"):
                events.expect(pid=1, count=200, timeout=0.01)
            with pytest.raises(NoValueError, match="the kernel does not count what it then loses"):
                _ = events.lost

    def test_attached_and_ran_0_times(self, sender, bpf_netns):
        """It uses a loopback of its own, on which nobody else sends."""
        quiet = bpf_netns().interface("lo")
        with (
            sender.programs.send.attach(interface=quiet),
            sender.maps.events.capture("open_event") as events,
            pytest.raises(CaptureTimeoutError) as failed,
        ):
            events.wait(timeout=0.01)
        assert "program 'send' is attached, but ran 0 times since the capture began" in str(failed.value)
