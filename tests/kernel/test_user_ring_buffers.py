"""Tests user ring buffers, from Python to a program."""

import errno

import pytest

from pytest_bpfmaps import ClosedError, MapError, MapValueError, NameLookupError

pytestmark = pytest.mark.bpf_requires("user_ringbuf", "xdp")

CODE = """
struct command {{ __u32 op; char name[12]; }};
struct other {{ __u64 a, b, c; }};
struct {{
    __uint(type, 31); // BPF_MAP_TYPE_USER_RINGBUF
    __uint(max_entries, 4096);
    {declared}
}} ring SEC(".maps");

struct command last;
struct other unused;
__u64 count, bytes;

static long take(struct bpf_dynptr *record, void *context)
{{
    struct command *c = bpf_dynptr_data(record, 0, sizeof(*c));
    count++;
    if (c)
        last = *c;
    return 0;
}}

SEC("xdp") int drain(struct xdp_md *ctx) {{ return bpf_user_ringbuf_drain(&ring, take, 0, 0) < 0; }}
"""


@pytest.fixture
def load(load_code):
    return lambda declared="": load_code(CODE.format(declared=declared))


@pytest.mark.parametrize("declared", ["", "__type(value, struct command);"])
def test_typed_records(load, declared):
    obj = load(declared)
    obj.maps.ring.send({"op": 7, "name": "seven"})
    assert obj.globals.count == 0
    assert obj.programs.drain.run(bytes(64)).retval == 0
    assert obj.globals.count == 1
    assert obj.globals.last == {"op": 7, "name": "seven"}
    obj.maps.ring.send((8, "eight"), "command")
    obj.programs.drain.run(bytes(64))
    assert obj.globals.last.name == "eight"
    with pytest.raises(MapValueError, match="no such field"):
        obj.maps.ring.send({"op": 1, "nam": "x"})
    with pytest.raises(NameLookupError, match=r"(?s)no struct 'comand'.*command"):
        obj.maps.ring.send((1, "x"), "comand")


def test_bytes_of_any_length(load):
    obj = load()
    for size in (1, 16, 1000):
        obj.maps.ring.send(b"\1" * size)
    obj.programs.drain.run(bytes(64))
    assert obj.globals.count == 3
    assert obj.globals.last.op == 0x01010101


def test_a_record_is_filled_in_place(load):
    obj = load()
    sample = obj.maps.ring.reserve("command")
    assert len(sample.data) == 16
    sample.data[:4] = b"\5\0\0\0"
    obj.programs.drain.run(bytes(64))
    assert obj.globals.count == 0  # the record is not submitted yet
    sample.submit()
    obj.programs.drain.run(bytes(64))
    assert obj.globals.last.op == 5
    for use in (sample.submit, sample.discard, lambda: sample.data):
        with pytest.raises(ClosedError, match="submitted or discarded"):
            use()


def test_an_exception_discards_a_record(load):
    obj = load()
    with pytest.raises(MapValueError), obj.maps.ring.reserve(size=8) as sample:
        sample.write(b"123456789")
    with obj.maps.ring.reserve(size=8) as sample:
        sample.write(b"12345678")
    obj.programs.drain.run(bytes(64))
    assert obj.globals.count == 1


def test_full(load):
    obj = load()
    for _ in range(4):
        obj.maps.ring.send(bytes(992))
    with pytest.raises(
        MapError, match=r"(?s)cannot reserve 992 bytes.*it is full.*run the program that calls"
    ) as caught:
        obj.maps.ring.send(bytes(992))
    assert caught.value.errno == errno.ENOSPC
    obj.programs.drain.run(bytes(64))
    assert obj.globals.count == 4
    obj.maps.ring.send(bytes(992))
    with pytest.raises(MapError, match=r"(?s)it has 4096 bytes.*max_entries larger") as caught:
        obj.maps.ring.send(bytes(4096))
    assert caught.value.errno == errno.E2BIG


def test_it_is_unmapped_with_its_object(load):
    obj = load()
    ring = obj.maps.ring
    sample = ring.reserve(size=8)
    obj.close()
    with pytest.raises(ClosedError):
        ring.send(b"x")
    with pytest.raises(ClosedError, match="its map is closed"):
        sample.submit()
