"""Tests the explanations of loaders whose programs the kernel refuses, against those of `bpf.load`."""

from __future__ import annotations

import pytest
from installed import installed

from pytest_bpfmaps import LoaderError, LoadError
from pytest_bpfmaps.loaders.rejections import explain_rejection

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, int); __type(value, long); }
    counts SEC(".maps");
"""
REJECTED = {
    "a value that may be missing": """
        SEC("xdp") int refused(struct xdp_md *ctx)
        {
            int key = 1;
            long *value = bpf_map_lookup_elem(&counts, &key);
            *value += 1;
            return XDP_PASS;
        }
        """,
    "a packet without a check": """
        SEC("xdp") int refused(struct xdp_md *ctx)
        {
            return *(char *)(long)ctx->data;
        }
        """,
    "an endless loop": """
        SEC("xdp") int refused(struct xdp_md *ctx)
        {
            for (volatile long i = 0; ; i++)
                if (i == ctx->rx_queue_index)
                    break;
            return XDP_PASS;
        }
        """,
    "a length without a bound": """
        SEC("xdp") int refused(struct xdp_md *ctx)
        {
            char text[16];

            return bpf_get_current_comm(text, ctx->rx_queue_index);
        }
        """,
    "a helper of tracing": """
        SEC("xdp") int refused(struct xdp_md *ctx)
        {
            return bpf_get_stackid(ctx, &counts, 0);
        }
        """,
}


@pytest.mark.parametrize("code", REJECTED.values(), ids=REJECTED)
def test_the_explanation_is_that_of_bpf_load(bpf, agent_binary, code):
    made = bpf.compile(code=HEAD + code)
    with pytest.raises(LoadError) as ours:
        bpf.load(made)
    with pytest.raises(LoaderError) as theirs:
        bpf.start([agent_binary, "load", made, "wait"], ready="waiting")
    status = "it ended with exit status 65: the verifier rejected program 'refused': "
    assert theirs.value.why.removeprefix(status) == ours.value.why.replace(" (xdp)", "")
    assert theirs.value.fix == ours.value.fix
    source = [
        line.split(": ", 1)[1]
        for line in ours.value.details.splitlines()
        if ".c:" in line or "C source" in line
    ]
    if "gave up" in ours.value.why:  # a log of a million instructions is cut, or is not requested
        return
    assert [each for each in source if each not in theirs.value.details] == []
    assert _last_steps(theirs.value.log) == _last_steps(ours.value.log) != []


def _last_steps(log):
    """Returns the last two lines before the figures, which a loader may not ask for."""
    figures = ("verification time ", "stack depth ", "processed ", "insns ")
    return [line for line in log.splitlines() if line and not line.startswith(figures)][-2:]


def test_libbpf_could_not_find_something(bpf, agent_binary):
    code = """
        extern int no_such_kfunc(void) __ksym;
        SEC("tc") int refused(struct __sk_buff *skb) { return no_such_kfunc(); }
        """
    made = bpf.compile(code=HEAD + code)
    with pytest.raises(LoadError) as ours:
        bpf.load(made)
    with pytest.raises(LoaderError) as theirs:
        bpf.start([agent_binary, "load", made, "wait"], ready="waiting")
    assert theirs.value.why == f"it ended with exit status 65: {ours.value.why}"
    assert theirs.value.fix == ours.value.fix


def test_bpftool_writes_it_too(bpf, bpf_netns, tmp_path):
    made = bpf.compile(code=HEAD + REJECTED["a packet without a check"])
    with pytest.raises(LoadError) as ours:
        bpf.load(made)
    with pytest.raises(LoaderError) as theirs:
        bpf.start([installed("bpftool"), "prog", "load", made, "/sys/fs/bpf/never"], ready="never")
    assert theirs.value.fix == ours.value.fix


def test_other_output_is_none(bpf):
    assert explain_rejection("all is well\n12: (a) b\n") is None
