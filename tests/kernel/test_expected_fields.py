"""Tests fields in expectations: fields with the names of arguments, and fields of nested structs."""

import pytest

from pytest_bpfmaps import CaptureTimeoutError, MapValueError, NameLookupError

CODE = """
struct inner { __u32 pid, tgid; };
struct head { struct inner ids; __u32 kind; };
struct event {
    __u32 pid, count;
    __u64 timeout, within;
    __u32 self, fields, number;
    struct head hdr;
};
struct other { __u32 pid; };
struct other *o;
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} ring SEC(".maps");
SEC("tc") int send(struct __sk_buff *skb)
{
    struct event e = {.pid = 1, .count = 1, .timeout = 500, .self = 3, .fields = 4, .hdr = {{5, 6}, 7}};

    bpf_ringbuf_output(&ring, &e, sizeof(e), 0);
    e.count = 2;
    return bpf_ringbuf_output(&ring, &e, sizeof(e), 0);
}
"""

pytestmark = pytest.mark.bpf_requires("ringbuf")


@pytest.fixture
def events(load_code):
    obj = load_code(CODE)
    with obj.maps.ring.capture("event") as events:
        assert obj.programs.send.run(bytes(64)).retval == 0
        yield events


@pytest.fixture
def others(load_code):
    obj = load_code(CODE)
    with obj.maps.ring.capture("other") as events:
        assert obj.programs.send.run(bytes(64)).retval == 0
        yield events


class TestFieldsNamedLikeArguments:
    def test_in_a_mapping(self, events):
        assert [e.count for e in events.expect({"count": 2}, count=1)] == [2]
        assert [e.count for e in events.expect({"timeout": 500}, count=2, timeout=5)] == [1, 2]
        assert len(events.expect({"within": 0, "pid": 1})) == 2
        events.expect_none({"within": 7}, within=0.01)
        with pytest.raises(CaptureTimeoutError, match="expected no record with within=0"):
            events.expect_none({"within": 0}, within=0.01)

    def test_as_keywords_that_are_no_arguments(self, events):
        assert len(events.expect(self=3, fields=4, within=0)) == 2
        events.expect_none(count=3, timeout=500)

    @pytest.mark.parametrize("arguments", [{"count": 2}, {"pid": 1, "count": 7}, {"pid": 9, "timeout": 3.0}])
    def test_as_keywords_that_are_arguments(self, events, arguments):
        name = list(arguments)[-1]
        with pytest.raises(NameLookupError) as refused:
            events.expect(**arguments)
        assert f"what {name!r} is in expect(…)" in str(refused.value)
        assert f"before arguments: expect({arguments}, …)" in str(refused.value)

    def test_the_default_is_an_argument_too(self, events):
        with pytest.raises(NameLookupError, match="'timeout'"):
            events.expect(pid=1, timeout=1.0)
        with pytest.raises(NameLookupError, match=r"expect_none\({'within': 0.1}, …\)"):
            events.expect_none(within=0.1)

    def test_one_field_twice(self, events):
        with pytest.raises(NameLookupError, match=r"'pid' .*it is given twice"):
            events.expect({"pid": 1}, pid=2)
        assert len(events.expect({"pid": 1}, number=0)) == 2

    def test_in_other_records_they_are_arguments(self, others):
        assert len(others.expect(pid=1, count=2, timeout=2.0)) == 2
        others.expect_none(pid=2, within=0.01)


class TestNestedStructs:
    def test_dotted_names(self, events):
        assert len(events.expect({"hdr.ids.pid": 5, "hdr.kind": 7}, count=2)) == 2
        events.expect({"hdr.ids.tgid": lambda tgid: tgid > 5}, count=2)
        with pytest.raises(CaptureTimeoutError) as failed:
            events.expect({"hdr.ids.pid": 6}, timeout=0.01)
        assert "{'hdr.ids.pid': 6}" in str(failed.value)
        assert "hdr.ids.pid is 5, not 6" in str(failed.value)

    def test_a_mapping_names_the_fields_that_count(self, events):
        assert len(events.expect(hdr={"ids": {"tgid": 6}})) == 2
        events.expect_none({"hdr": {"ids": {"tgid": 5}}}, within=0.01)
        assert len(events.expect(hdr=((5, 6), 7))) == 2

    @pytest.mark.parametrize(
        ("wanted", "named"),
        [
            ({"hdr.ids.pd": 5}, "'pid'"),
            ({"hdr.pid": 5}, "did you mean 'hdr.ids.pid'?"),
            ({"kind": 7}, "did you mean 'hdr.kind'?"),
            ({"pid.x": 5}, "__u32 is not a struct"),
            ({"hdr": {"knd": 5}}, "'kind'"),
        ],
    )
    def test_unknown_names(self, events, wanted, named):
        with pytest.raises(NameLookupError) as refused:
            events.expect(wanted)
        assert named in str(refused.value)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"pid": "1"}, "no __u32 has that value: it is str, not an int"),
        ({"count": -1}, "give an int from 0 to 4294967295"),
        ({"hdr.ids.pid": 2**32}, "it is out of range"),
        ({"hdr": {"kind": None}}, "kind=None"),
    ],
)
def test_a_value_that_no_field_can_have_is_refused(events, wanted, why):
    for wait in (events.expect, events.expect_none):  # the second would be content
        with pytest.raises(MapValueError, match="cannot wait for") as refused:
            wait(wanted)
        assert why in str(refused.value)
