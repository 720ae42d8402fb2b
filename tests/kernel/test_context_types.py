"""A program that declares the context of another type of program is told, and its mended twin is not."""

import warnings

import pytest

from pytest_bpfmaps import ContextTypeWarning, VerifierError

HEAD = """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char _license[] SEC("license") = "GPL";
__u64 seen;
"""
XDP = HEAD + 'SEC("xdp")\nint see(struct {} *ctx)\n{{\n\tseen = ctx->{};\n\treturn XDP_PASS;\n}}\n'
EMPTY = HEAD + 'SEC("{}")\nint see({})\n{{\n\treturn 0;\n}}\n'


@pytest.mark.bpf_requires("xdp")
def test_xdp_with_the_context_of_tc_reads_another_field_and_is_told(bpf, bpf_netns):
    packet = bytes(64)
    with pytest.warns(
        ContextTypeWarning, match=r"struct __sk_buff \*, but .* type xdp is struct xdp_md"
    ) as told:
        wrong = bpf.load(code=XDP.format("__sk_buff", "queue_mapping"))
    assert told[0].filename.endswith(".c")
    assert told[0].lineno == 7, "the line of the function"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mended = bpf.load(code=XDP.format("xdp_md", "ingress_ifindex"))
    with bpf_netns().enter():
        for each in (wrong, mended):
            each.programs.see.run(packet)
    assert wrong.globals.seen == mended.globals.seen == 1, "the loopback interface, whatever its name is"


@pytest.mark.bpf_requires("xdp")
def test_a_field_that_the_context_lacks_is_explained_by_the_type(bpf):
    with (
        pytest.warns(ContextTypeWarning),
        pytest.raises(VerifierError, match=r"-> declare it as struct xdp_md \*"),
    ):
        bpf.load(code=XDP.format("__sk_buff", "family"))


@pytest.mark.parametrize(
    ("section", "wrong", "right"),
    [
        ("tc", "struct xdp_md *ctx", "struct __sk_buff *ctx"),
        ("cgroup/connect4", "struct bpf_sock *ctx", "struct bpf_sock_addr *ctx"),
        ("raw_tp/sys_enter", "struct trace_event_raw_sys_enter *ctx", "struct bpf_raw_tracepoint_args *ctx"),
        (
            "tp/raw_syscalls/sys_enter",
            "struct bpf_raw_tracepoint_args *ctx",
            "struct trace_event_raw_sys_enter *ctx",
        ),
        ("kprobe/do_unlinkat", "struct task_struct *task", "struct pt_regs *ctx"),
    ],
)
def test_each_type_has_its_context(bpf, section, wrong, right):
    with pytest.warns(ContextTypeWarning, match="the context of programs of type .* is"):
        bpf.load(code=EMPTY.format(section, wrong))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bpf.load(code=EMPTY.format(section, right))
        bpf.load(code=EMPTY.format(section, "void *ctx"))


def test_arguments_of_bpf_prog_are_not_those_of_a_kprobe(bpf):
    program = HEAD + 'SEC("kprobe/do_unlinkat")\nint {}\n{{\n\tseen = {};\n\treturn 0;\n}}\n'
    with pytest.warns(ContextTypeWarning, match=r"write BPF_KPROBE\(\)"):
        bpf.load(code=program.format("BPF_PROG(see, int fd)", "fd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bpf.load(code=program.format("BPF_KPROBE(see, int fd)", "fd"))
        bpf.load(code=program.format("BPF_PROG(see)", "1"))
