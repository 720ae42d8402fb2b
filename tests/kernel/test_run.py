"""Tests running programs without an event, with packets and contexts as input and output."""

import errno
import os
import socket
import struct

import pytest

from pytest_bpfmaps import LoadError, MapTypeError, MapValueError, NoValueError, UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.programs.context import context_codec
from pytest_bpfmaps.programs.prog_run import _LIVE_FRAMES, _xdp_takes

FRAME = bytes(range(12)) + b"\x88\xb5" + bytes(50)

SKB = """
SEC("tc") int change(struct __sk_buff *skb)
{
    if (skb->mark != 7 || skb->cb[1] != 5)
        return 1;
    skb->mark = 8;
    skb->cb[2] = skb->len;
    bpf_skb_store_bytes(skb, 20, "!", 1, 0);
    return 2;
}
SEC("tc") int untyped(void *skb) { ((struct __sk_buff *)skb)->priority = 3; return 0; }
SEC("xdp") int shrink(struct xdp_md *ctx) { return bpf_xdp_adjust_head(ctx, 14) ? XDP_ABORTED : XDP_PASS; }
"""


class TestPackets:
    @pytest.fixture
    def programs(self, load_code):
        return load_code(SKB).programs

    def test_the_packet_comes_back_changed(self, programs):
        assert programs.shrink.run(FRAME).data == FRAME[14:]
        assert programs.shrink.run(bytearray(FRAME)).retval == 2

    def test_scapy_packets(self, programs):
        from scapy.layers.l2 import Ether

        assert programs.shrink.run(Ether() / bytes(46)).data == bytes(46)

    def test_repeat(self, load_code):
        loaded = load_code('__u64 n; SEC("tc") int count(struct __sk_buff *skb) { n++; return 0; }')
        assert loaded.programs.count.run(FRAME, repeat=1000).duration_ns > 0
        assert loaded.globals.n == 1000

    def test_cpu(self, load_code):
        loaded = load_code("""
            __u32 cpu;
            SEC("tc") int where(struct __sk_buff *skb) { cpu = bpf_get_smp_processor_id(); return 0; }
        """)
        before = os.sched_getaffinity(0)
        for cpu in before:
            loaded.programs.where.run(FRAME, cpu=cpu)
            assert loaded.globals.cpu == cpu
        assert os.sched_getaffinity(0) == before
        with pytest.raises(LoadError, match=r"(?s)CPU 9999 does not exist.*CPUs: 0"):
            loaded.programs.where.run(FRAME, cpu=9999)

    @pytest.mark.bpf_requires(helper="bpf_xdp_get_buff_len")  # this helper came with XDP's fragments
    def test_a_packet_of_several_pages(self, load_code):
        code = """
        SEC("xdp.frags") int measure(struct xdp_md *ctx)
        {
            __u8 last;

            bpf_xdp_load_bytes(ctx, bpf_xdp_get_buff_len(ctx) - 1, &last, 1);
            return last;
        }
        """
        data = bytes(8999) + b"\2"
        result = load_code(code).programs.measure.run(data)
        assert (result.retval, result.data) == (2, data)

    @pytest.mark.parametrize(("section", "fix"), [("tc", "give 3500 bytes"), ("xdp", "xdp.frags")])
    def test_too_long_a_packet_says_so(self, load_code, section, fix):
        ctx = {"tc": "__sk_buff", "xdp": "xdp_md"}[section]
        program = load_code(f'SEC("{section}") int two(struct {ctx} *ctx) {{ return 2; }}').programs.two
        assert program.run(bytes(3500)).retval == 2
        try:
            program.run(bytes(70000))
        except LoadError as e:
            assert fix in str(e)  # noqa: PT017  newer kernels take several pages

    @pytest.mark.parametrize("repeat", [-1, 1 << 31])
    def test_numbers_of_repetitions_that_no_kernel_means(self, load_code, repeat):
        program = load_code('SEC("tc") int pass(struct __sk_buff *skb) { return 0; }').programs["pass"]
        with pytest.raises(MapValueError, match=f"repeat is {repeat}\n.*from 1 to 2147483647"):
            program.run(FRAME, repeat=repeat)

    def test_too_short_a_packet_says_so(self, load_code):
        program = load_code('SEC("tc") int pass(struct __sk_buff *skb) { return 0; }').programs["pass"]
        with pytest.raises(LoadError, match=r"(?s)EINVAL.*at least an Ethernet header: 14 bytes"):
            program.run(b"1234")
        with pytest.raises(MapTypeError, match="it is str"):
            program.run("a packet")


class TestContexts:
    @pytest.fixture
    def programs(self, load_code):
        return load_code(SKB).programs

    def test_skb_fields_in_and_out(self, programs):
        result = programs.change.run(FRAME, ctx={"mark": 7, "cb": [0, 5, 0, 0, 0]})
        assert (result.retval, result.ctx.mark, list(result.ctx.cb)) == (2, 8, [0, 5, 64, 0, 0])
        assert result.data[20:21] == b"!"
        assert programs.change.run(FRAME, ctx=struct.pack("=3I", 0, 0, 6)).ctx.mark == 6

    def test_skb_context_comes_back_when_none_is_given(self, programs):
        assert programs.change.run(FRAME).ctx.mark == 0
        assert programs.untyped.run(FRAME).ctx.priority == 3

    def test_a_context_can_be_given_again(self, programs):
        first = programs.change.run(FRAME, ctx={"mark": 6}).ctx
        assert first == programs.change.run(FRAME, ctx={"mark": first.mark}).ctx

    def test_unknown_fields_name_the_closest(self, programs):
        with pytest.raises(MapValueError, match=r"(?s)'marc'.*context of program 'change'.*'mark'"):
            programs.change.run(FRAME, ctx={"marc": 7})
        with pytest.raises(MapTypeError, match=r"context 7: it is no struct __sk_buff"):
            programs.change.run(FRAME, ctx=7)

    def test_fields_that_can_not_be_set(self, programs):
        with pytest.raises(LoadError, match=r"(?s)EINVAL.*set only mark, priority"):
            programs.change.run(FRAME, ctx={"len": 7})
        with pytest.raises(LoadError, match=r"(?s)ENODEV|EINVAL"):
            programs.change.run(FRAME, ctx={"ifindex": 99999})

    def test_xdp_metadata(self, load_code):
        program = load_code("""
            SEC("xdp") int read(struct xdp_md *ctx)
            {
                __u32 *meta = (void *)(long)ctx->data_meta, *data = (void *)(long)ctx->data;
                return meta + 1 > data ? 0 : *meta;
            }
        """).programs.read
        assert program.run(FRAME).ctx is None
        packet, ctx = struct.pack("=I", 77) + FRAME, {"data": 4}
        if not _xdp_takes(0, struct.pack("=5I", 0, 64, 0, 0, 0)):
            with pytest.raises(UnsupportedError, match=r"Linux .* takes no context for XDP"):
                program.run(packet, ctx)
            return
        result = program.run(packet, ctx)
        assert (result.retval, result.ctx.data, result.ctx.data_end) == (77, 4, 68)
        with pytest.raises(LoadError, match=r"(?s)EINVAL.*set data_end to the size of data"):
            program.run(FRAME, ctx={"data_meta": 4})

    def test_flow_keys(self, load_code):
        program = load_code("""
            SEC("flow_dissector") int flow(struct __sk_buff *skb)
            {
                skb->flow_keys->sport = 5;
                skb->flow_keys->ipv4_dst = 9;
                return BPF_OK;
            }
        """).programs.flow
        keys = program.run(FRAME).ctx
        assert (keys.sport, keys.nhoff, keys.ipv4_dst, keys.ipv6_src[1]) == (5, 14, 9, 9)

    def test_sk_lookup(self, load_code):
        program = load_code("""
            SEC("sk_lookup") int pick(struct bpf_sk_lookup *ctx)
            { return ctx->local_port == 80 && ctx->family == 2 ? SK_PASS : SK_DROP; }
        """).programs.pick
        query = {"family": socket.AF_INET, "protocol": socket.IPPROTO_TCP}
        try:
            result = program.run(ctx={**query, "local_port": 80})
        except UnsupportedError as e:  # the other message is checked below
            pytest.skip(str(e))
        assert result.retval == 1
        result = program.run(ctx={**query, "local_port": 81})
        assert (result.retval, result.ctx.cookie) == (0, 0)
        with pytest.raises(UnsupportedError, match="a context and no packet"):
            program.run(FRAME, ctx=query)
        for nothing in (None, {}, {"local_port": 80}):
            with pytest.raises(
                LoadError, match=r'EAFNOSUPPORT.*\n.*run\(ctx=\{"family": socket\.AF_INET, "pro'
            ):
                program.run(ctx=nothing)

    @pytest.mark.bpf_requires(program_type="syscall")
    def test_syscall_programs_write_their_argument(self, load_code):
        program = load_code("""
            struct args { __u32 a, b; __u64 sum; };
            SEC("syscall") int add(struct args *args) { args->sum = args->a + args->b; return 3; }
        """).programs.add
        result = program.run(ctx={"a": 4, "b": 5})
        assert (result.retval, result.ctx) == (3, {"a": 4, "b": 5, "sum": 9})
        assert program.run(ctx=(1, 2, 0)).ctx.sum == 3
        with pytest.raises(UnsupportedError, match="runs programs of type syscall once at a time"):
            program.run(ctx={}, repeat=2)

    @pytest.mark.bpf_requires("raw_tracepoint")
    def test_raw_tracepoints_take_numbers(self, load_code):
        program = load_code("""
            __u64 first, second;
            SEC("raw_tp/sys_enter") int keep(struct bpf_raw_tracepoint_args *ctx)
            { first = ctx->args[0]; second = ctx->args[1]; return 1; }
        """)
        assert program.programs.keep.run(ctx=[5, -1]).retval == 1
        assert (program.globals.first, program.globals.second) == (5, 2**64 - 1)


class TestLiveFrames:
    def test_packets_go_where_the_verdict_says(self, load_code, bpf_netns):
        loaded = load_code("""
            int ifindex;
            SEC("xdp") int out(struct xdp_md *ctx) { return bpf_redirect(ifindex, 0); }
            SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
        """)
        near, far = bpf_netns().veth_to(bpf_netns())
        loaded.programs["pass"].attach(interface=far, mode="native")
        loaded.globals.ifindex = near.index
        with far.sniff() as arrived, near.enter():
            if not _xdp_takes(_LIVE_FRAMES, b""):
                with pytest.raises(UnsupportedError, match=r"Linux .* has no live frames for XDP"):
                    loaded.programs.out.run(FRAME, repeat=10, live=True)
                return
            result = loaded.programs.out.run(FRAME, repeat=10, live=True)
            assert arrived.wait(10, timeout=60) == [FRAME] * 10
        with pytest.raises(NoValueError, match="acts on it, but does not report it"):
            _ = result.retval

    def test_they_are_for_xdp(self, load_code):
        program = load_code('SEC("tc") int pass(struct __sk_buff *skb) { return 0; }').programs["pass"]
        with pytest.raises(UnsupportedError, match=r"live frames are for XDP, not for .* type sched_cls"):
            program.run(FRAME, live=True)


def test_a_type_without_test_run_names_type_and_kernel(load_code, bpf_kernel):
    program = load_code(
        'SEC("cgroup/setsockopt") int set(struct bpf_sockopt *ctx) { return 1; }'
    ).programs.set
    with pytest.raises(UnsupportedError) as caught:
        program.run(FRAME)
    why = f"Linux {bpf_kernel.release} has no BPF_PROG_TEST_RUN for programs of type cgroup_sockopt"
    assert why in str(caught.value)
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("type", [ProgramType.XDP, ProgramType.SCHED_CLS, ProgramType.SK_LOOKUP])
def test_layouts_for_programs_that_do_not_say_are_the_headers(bpf, type):
    ours = context_codec(type, "", None)
    code = f"""
        #include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        {ours.name} context;
        struct bpf_flow_keys keys;
    """
    codecs = bpf.open(code=code).attempt.codecs
    for mine in (ours, context_codec(ProgramType.FLOW_DISSECTOR, "", None)):
        theirs = codecs.struct(mine.name)
        places = {f.name: (f.offset, f.codec.size) for f in mine.fields}
        for field in theirs.fields:
            if field.name in places:
                assert (field.offset, field.codec.size) == places[field.name], field.name
        assert {f.name for f in theirs.fields} - places.keys() <= {"sk", "ingress_ifindex"}
