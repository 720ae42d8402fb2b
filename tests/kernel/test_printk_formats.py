"""Tests, against the kernel, that a load reports formats of bpf_printk that the kernel refuses."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_bpfmaps import PortabilityWarning
from pytest_bpfmaps.events.printk_formats import refused_conversion

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
ASK = """
char format[64];
__u32 size;
int answer;
SEC("tc") int prog(struct __sk_buff *skb)
{
    __s64 n = size;
    if (n > (long)sizeof(format))
        return 0;
    barrier_var(n);
    if (n < 1)
        return 0;
    answer = bpf_trace_printk(format, n, 0, 0, 0);
    return 0;
}
"""
PRINT = 'SEC("tc") int prog(struct __sk_buff *skb) { bpf_printk("length FORMAT bytes", skb->len); return 0; }'
PART = st.builds(
    "%{}{}{}{}".format,
    st.sampled_from(["", "", "-", "0", "+", " ", "#", "-0"]),
    st.sampled_from(["", "", "4", "12", "4.2", "*"]),
    st.sampled_from(["", "l", "ll", "h", "hh", "z", "p"]),
    st.sampled_from([*"diuxXcspfegoa%", "s", "I4", "i6", "ks", "us", "K", "B", ""]),
)
TEXT = st.sampled_from(["", " ", "a", "7", "_", ", "])


@pytest.fixture
def asked(bpf):
    return bpf.load(code=HEAD + ASK)


def test_the_kernel_refuses_what_is_told(asked):
    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @example([("%lf", "")])
    @example([("%%", "d")])
    @example([("%s", "_")])
    @given(st.lists(st.tuples(PART, TEXT), min_size=1, max_size=2))
    def ask(parts):
        format = "".join(part + text for part, text in parts)
        asked.globals.format = format
        asked.globals.size = len(format) + 1
        asked.programs.prog.run(bytes(64))
        if format.count("%s") + format.count("us") + format.count("ks") > 1:
            return  # Linux 5.10 accepts one text at most
        assert (asked.globals.answer < 0) == (refused_conversion(format) is not None), format

    ask()


@pytest.mark.parametrize(("bad", "good"), [("%lf", "%lld"), ("%hd", "%d"), ("%.3d", "%d")])
def test_a_format_that_prints_nothing(bpf, bad, good):
    with pytest.warns(PortabilityWarning, match=rf"prints nothing.* refuses '{bad}'") as told:
        bpf.load(code=HEAD + '#pragma clang diagnostic ignored "-Wformat"\n' + PRINT.replace("FORMAT", bad))
    assert len(told) == 1
    bpf.load(code=HEAD + PRINT.replace("FORMAT", good))
