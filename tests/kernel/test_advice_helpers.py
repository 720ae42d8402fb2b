"""Tests advice about helpers of tracing programs, and about functions that take no further program."""

import errno
from contextlib import ExitStack

import pytest

from pytest_bpfmaps import AttachError, VerifierError
from pytest_bpfmaps.kernel.features import probe

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
"""
OVERRIDE = 'SEC("%s") int prog(void *ctx) { bpf_override_return(ctx, -1); return 0; }'
ARGUMENT = 'SEC("%s") int prog(void *ctx) { __u64 value; bpf_get_func_arg(ctx, 0, &value); return 0; }'
RESULT = 'SEC("%s") int prog(void *ctx) { __u64 value; bpf_get_func_ret(ctx, &value); return 0; }'
EMPTY = 'SEC("%s") int prog(void *ctx) { return 0; }'


def refusal(bpf, code):
    with pytest.raises(VerifierError) as caught:
        bpf.load(code=HEAD + code)
    return caught.value


@pytest.mark.bpf_requires("kprobe/vfs_read", "fmod_ret/security_file_open")
@pytest.mark.parametrize("section", ["kprobe/vfs_read", "tracepoint/syscalls/sys_enter_getpgid"])
def test_a_result_that_is_replaced(bpf, section):
    if probe("helper", "bpf_override_return"):
        why = "does not allow it in this type of program"
        section = "tracepoint/syscalls/sys_enter_getpgid"  # a kprobe may call it
    else:
        why = "is built without CONFIG_BPF_KPROBE_OVERRIDE"
    error = refusal(bpf, OVERRIDE % section)
    assert why in error.why
    assert 'SEC("lsm/HOOK"), or from SEC("fmod_ret/security_HOOK")' in error.fix
    remedy = "int BPF_PROG(prog, struct file *file, int result) { return file ? result : -1; }"
    bpf.load(code=HEAD + f'SEC("fmod_ret/security_file_open") {remedy}').attach()


@pytest.mark.bpf_requires("kprobe/vfs_read", "fentry/vfs_read", "bpf_get_func_arg")
@pytest.mark.parametrize("section", ["kprobe/vfs_read", "raw_tp/sched_switch"])
def test_an_argument_by_number(bpf, section):
    error = refusal(bpf, ARGUMENT % section)
    assert "this kernel has bpf_get_func_arg, but does not allow it in this type of program" in error.why
    assert error.fix.startswith('it is for SEC("fentry/FUNCTION")')
    bpf.load(code=HEAD + ARGUMENT % "fentry/vfs_read")
    bpf.load(code=HEAD + 'SEC("kprobe/vfs_read") int BPF_KPROBE(prog, struct file *first) { return !first; }')


@pytest.mark.bpf_requires("kprobe/vfs_read", "fexit/vfs_read", "bpf_get_func_ret")
def test_a_result_by_number(bpf):
    error = refusal(bpf, RESULT % "kretprobe/vfs_read")
    assert error.fix.startswith('it is for SEC("fexit/FUNCTION")')
    bpf.load(code=HEAD + RESULT % "fexit/vfs_read")
    bpf.load(code=HEAD + 'SEC("kretprobe/vfs_read") int BPF_KRETPROBE(prog, long result) { return !result; }')


@pytest.mark.bpf_requires("fentry/vfs_read")
@pytest.mark.parametrize("kind", ["fentry", "fexit"])
def test_a_second_link_of_a_program(bpf, kind):
    program = bpf.load(code=HEAD + EMPTY % f"{kind}/vfs_read").programs.prog
    link = program.attach()
    with pytest.raises(AttachError) as caught:
        program.attach()
    bpf.load(code=HEAD + EMPTY % f"{kind}/vfs_read").attach()
    link.close()
    if caught.value.errno == errno.ENOENT:  # Linux 5.10
        assert "this kernel attaches a loaded program to its function once" in str(caught.value)
        assert "-> load the object once more" in str(caught.value)
    else:
        assert "this program is attached to its function already" in str(caught.value)
        assert "-> close its link first; for a second link, load the object once more" in str(caught.value)
        program.attach()


@pytest.mark.bpf_requires("program_type:ext")
def test_a_second_replacement(bpf):
    code = "__attribute__((noinline)) int part(struct xdp_md *ctx) { return ctx->rx_queue_index & 1; }"
    base = bpf.load(code=f'{HEAD}{code} SEC("xdp") int base(struct xdp_md *ctx) {{ return part(ctx); }}')

    def replacement(stack):
        opened = bpf.open(code=HEAD + 'SEC("freplace") int patch(struct xdp_md *ctx) { return 2; }')
        stack.enter_context(opened).programs.patch.set_attach_target("part", base.programs.base)
        return stack.enter_context(opened.load()).programs.patch

    with ExitStack() as stack:
        first, second = replacement(stack), replacement(stack)
        link = stack.enter_context(first.attach())
        with pytest.raises(AttachError, match="another freplace program replaces that function") as caught:
            second.attach()
        assert "-> close the link of that one first" in str(caught.value)
        link.close()
        stack.enter_context(second.attach())


@pytest.mark.bpf_requires("fentry/vfs_read")
def test_more_programs_than_a_function_takes(bpf):
    programs = [bpf.load(code=HEAD + EMPTY % "fentry/security_file_open").programs.prog for _ in range(41)]
    links = []
    with pytest.raises(AttachError, match="as many programs are attached to that function") as caught:
        links += (program.attach() for program in programs)
    assert "-> close some of their links" in str(caught.value)
    links[0].close()
    programs[len(links)].attach()
