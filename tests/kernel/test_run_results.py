"""Tests the results of a run: return values by name and sign, and the known fields of a context."""

import errno
import pickle

import pytest

import pytest_bpfmaps
from pytest_bpfmaps import (
    TC_ACT_SHOT,
    TC_ACT_UNSPEC,
    XDP_DROP,
    MapTypeError,
    NoValueError,
    TcAction,
    UnsupportedError,
    XdpAction,
)

FRAME = bytes(12) + b"\x08\x00" + bytes(50)
NUMBERS = [
    *("len", "pkt_type", "mark", "queue_mapping", "protocol", "vlan_present", "vlan_tci", "vlan_proto"),
    *("priority", "ingress_ifindex", "ifindex", "tc_index", "hash", "tc_classid", "napi_id", "tstamp"),
    *("wire_len", "gso_segs", "gso_size"),
]
LOOKING = f"""
{" ".join(f"__u64 seen_{name};" for name in NUMBERS)}
__u32 seen_cb[5];
static __always_inline int look(struct __sk_buff *skb)
{{
    {" ".join(f"seen_{name} = skb->{name};" for name in NUMBERS)}
    for (int i = 0; i < 5; i++)
        seen_cb[i] = skb->cb[i];
    return 0;
}}
#define SET(field, value) (*(volatile __u32 *)&skb->field = value)
SEC("tc") int change(struct __sk_buff *skb)
{{
    bpf_skb_vlan_push(skb, 0x0081, 5);
    bpf_skb_change_type(skb, 3);
    bpf_set_hash(skb, 99);
    SET(tc_classid, 7);
    SET(tc_index, 8);
    SET(mark, 9);
    SET(queue_mapping, 3);
    SET(priority, 12);
    SET(cb[0], 11);
    SET(cb[4], 14);
    skb->tstamp = 77;
    return look(skb);
}}
SEC("tc") int same(struct __sk_buff *skb) {{ return look(skb); }}
SEC("tc") int grow(struct __sk_buff *skb) {{ bpf_skb_change_tail(skb, 100, 0); return look(skb); }}
"""


class TestContexts:
    """A field of the context has the program's last value, or an error says that the kernel hides it."""

    @pytest.mark.parametrize(
        ("program", "ctx"),
        [
            ("change", None),
            ("grow", None),
            ("same", None),
            ("same", {"mark": 1, "priority": 2, "cb": [1, 2, 3, 4, 5], "tstamp": 6}),
            ("same", {"gso_size": 10, "gso_segs": 2, "wire_len": 100}),
            ("same", {"ifindex": 1}),
        ],
    )
    def test_skb(self, load_code, program, ctx):
        obj = load_code(LOOKING)
        after = obj.programs[program].run(FRAME, ctx=ctx).ctx
        seen = {name: obj.globals[f"seen_{name}"] for name in NUMBERS}
        known = {name: value for name, value in after._asdict().items() if name in NUMBERS}
        unknown = seen.keys() - known.keys()
        for name in unknown:
            with pytest.raises(NoValueError, match="the kernel does not give it back"):
                _ = after[name]
        assert known == {name: seen[name] for name in known}
        assert list(after.cb) == list(obj.globals.seen_cb)
        assert {"mark", "priority", "ifindex", "tstamp", "wire_len", "gso_segs"} <= known.keys()
        assert {"len", "protocol", "vlan_tci", "tc_classid", "queue_mapping"} <= unknown

    def test_the_length_is_that_of_the_packet(self, load_code):
        result = load_code(LOOKING).programs.grow.run(FRAME)
        with pytest.raises(NoValueError, match=r"(?s)'len' of the context .*result\.data"):
            _ = result.ctx.len
        assert len(result.data) == 100
        assert "'len': <not there>" in repr(result.ctx)

    def test_what_came_back_can_be_given_again(self, load_code):
        programs = load_code('SEC("tc") int next(struct __sk_buff *skb) { return ++skb->mark; }').programs
        first = programs.next.run(FRAME)
        again = programs.next.run(FRAME, ctx=first.ctx)
        assert (first.ctx.mark, again.ctx.mark) == (1, 2)

    @pytest.mark.bpf_requires(helper="bpf_xdp_get_buff_len")  # nearly as old as contexts for XDP
    def test_xdp(self, load_code):
        loaded = load_code("""
            __u64 ifindex;
            SEC("xdp") int look(struct xdp_md *ctx) { ifindex = ctx->ingress_ifindex; return XDP_PASS; }
        """)
        after = loaded.programs.look.run(FRAME, ctx={"data_end": len(FRAME)}).ctx
        assert (after.data, after.data_end, after.data_meta) == (0, len(FRAME), 0)
        for name in ("ingress_ifindex", "rx_queue_index", "egress_ifindex"):
            with pytest.raises(NoValueError, match=name):
                _ = after[name]
        given = {"data_end": len(FRAME), "ingress_ifindex": 1}
        assert loaded.programs.look.run(FRAME, ctx=given).ctx.ingress_ifindex == loaded.globals.ifindex == 1


RETURNS = """
SEC("tc") int unspec(struct __sk_buff *skb) { return -1; }
SEC("tc") int shot(struct __sk_buff *skb) { return 2; }
SEC("tc") int other(struct __sk_buff *skb) { return 1234; }
SEC("tc") __u32 large(struct __sk_buff *skb) { return 4000000000; }
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
SEC("xdp") enum xdp_action pass_it(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int negative(struct xdp_md *ctx) { return -5; }
SEC("socket") int length(struct __sk_buff *skb) { return skb->len; }
SEC("socket") unsigned int all(struct __sk_buff *skb) { return ~0u; }
enum answer { NO = -1, YES = 1 };
SEC("socket") enum answer answer(struct __sk_buff *skb) { return skb->len == 5 ? YES : NO; }
SEC("socket") _Bool truth(struct __sk_buff *skb) { return skb->len > 5; }
SEC("socket") short little(struct __sk_buff *skb) { return skb->len > 5 ? -7 : 7; }
"""


class TestResults:
    """A test that forgets ``.retval`` fails: no verdict would make it fail otherwise."""

    def test_a_result_is_no_condition(self, load_code):
        result = load_code(RETURNS).programs.drop.run(FRAME)
        with pytest.raises(MapTypeError, match=r"as a condition(?s:.*)result\.retval == XDP_DROP, "):
            assert result

    def test_a_result_is_no_verdict(self, load_code):
        programs = load_code(RETURNS).programs
        result = programs.drop.run(FRAME)
        for other in (XDP_DROP, "XDP_DROP", None, programs.drop.run(FRAME)):
            with pytest.raises(MapTypeError, match="cannot compare the result of a run with "):
                assert result != other
        assert result in [result]


class TestReturnValues:
    @pytest.mark.parametrize(
        ("program", "value", "name"),
        [
            ("unspec", -1, "TC_ACT_UNSPEC"),
            ("shot", 2, "TC_ACT_SHOT"),
            ("other", 1234, None),
            ("large", 4000000000, None),
            ("drop", 1, "XDP_DROP"),
            ("pass_it", 2, "XDP_PASS"),
            ("negative", -5, None),
            ("length", 50, None),
            ("all", 0xFFFFFFFF, None),
            ("answer", -1, "NO"),
            ("truth", 1, None),
            ("little", -7, None),
        ],
    )
    def test_sign_and_name(self, load_code, program, value, name):
        got = load_code(RETURNS).programs[program].run(FRAME).retval
        assert got == value
        assert getattr(got, "name", None) == name

    def test_members(self, load_code):
        programs = load_code(RETURNS).programs
        got = programs.drop.run(FRAME).retval
        assert got is XDP_DROP is XdpAction(1) is pytest_bpfmaps.XDP_DROP
        assert (str(got), f"{got}", f"{got:d}", repr(got)) == ("XDP_DROP", "XDP_DROP", "1", "XDP_DROP")
        assert isinstance(got, int)
        assert pickle.loads(pickle.dumps(got)) is got
        assert programs.shot.run(FRAME).retval is TC_ACT_SHOT is pytest_bpfmaps.TCX_DROP
        assert programs.unspec.run(FRAME).retval is TC_ACT_UNSPEC is TcAction(-1)
        assert "retval=XDP_DROP" in repr(programs.drop.run(FRAME))

    @pytest.mark.bpf_requires("syscall")
    def test_a_syscall_programs_error(self, load_code):
        programs = load_code(f'SEC("syscall") int fail(void *ctx) {{ return -{errno.ENOENT}; }}').programs
        result = programs.fail.run()
        assert result.retval == -errno.ENOENT
        with pytest.raises(NoValueError, match="does not measure the runs of syscall"):
            _ = result.duration_ns

    def test_the_constants_are_the_kernels(self, load_code):
        groups = {
            "xdp": ["XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT"],
            "tc": ["OK", "RECLASSIFY", "SHOT", "PIPE", "STOLEN", "QUEUED", "REPEAT", "REDIRECT", "TRAP"],
            "other": ["SK_DROP", "SK_PASS", "NF_DROP", "NF_ACCEPT", "BPF_OK", "BPF_DROP", "BPF_REDIRECT"],
        }
        groups["tc"] = [f"TC_ACT_{name}" for name in groups["tc"]]
        names = [name for group in groups.values() for name in group]
        code = "#include <linux/pkt_cls.h>\n#include <linux/netfilter.h>\n"
        code += f"__u32 values[] = {{{', '.join(names)}}};\n"
        code += 'SEC("tc") int look(struct __sk_buff *skb) { return values[skb->len % 2]; }'
        values = load_code(code).globals["values"]
        assert dict(zip(names, values, strict=True)) == {n: int(getattr(pytest_bpfmaps, n)) for n in names}


TRACING = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
int ran;
SEC("fentry/bpf_fentry_test1") int BPF_PROG(called, int a) { ran++; return 0; }
SEC("fexit/vfs_read") int BPF_PROG(elsewhere) { ran++; return 0; }
SEC("tp_btf/sys_enter") int BPF_PROG(tracepoint) { ran++; return 0; }
"""


@pytest.mark.bpf_requires("fentry/bpf_fentry_test1", "fexit/vfs_read", "tp_btf/sys_enter")
class TestTracing:
    """The kernel calls functions of its own, and returns 0 whether or not the program ran."""

    def test_what_is_attached_to_a_function_that_a_run_calls_runs(self, bpf):
        obj = bpf.load(code=TRACING)
        with obj.programs.called.attach():
            assert obj.programs.called.run().retval == 0
        assert obj.globals.ran == 1

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("called", r"calls bpf_fentry_test1\(\), and the program is not attached.*-> attach it before"),
            ("elsewhere", r"and not vfs_read\(\).*-> attach it and call that function"),
            ("tracepoint", "no programs of that kind by themselves.*-> attach it and trigger a real event"),
        ],
    )
    def test_what_would_not_run_is_refused(self, bpf, name, why):
        obj = bpf.load(code=TRACING)
        with pytest.raises(UnsupportedError, match=f"(?s){why}"):
            obj.programs[name].run()
