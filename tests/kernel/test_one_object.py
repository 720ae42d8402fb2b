"""Tests that all kernels use one vmlinux.h and one object, so that CO-RE is tested on each."""

import os

import pytest

from pytest_bpfmaps import LoadError
from pytest_bpfmaps.kernel.btf import vmlinux_codecs

CODE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
char LICENSE[] SEC("license") = "GPL";

struct task_struct___before_5_14 { volatile long state; } __attribute__((preserve_access_index));
enum bpf_cmd___ours { BPF_TOKEN_CREATE___ours = 1, BPF_MAP_CREATE___ours = 77 };

int has_new, has_old, has_command, map_create, pid_offset, size, pid;

SEC("xdp") int look(struct xdp_md *ctx)
{
    struct task_struct *task = 0;

    has_new = bpf_core_field_exists(task->__state);
    has_old = bpf_core_field_exists(struct task_struct___before_5_14, state);
    has_command = bpf_core_enum_value_exists(enum bpf_cmd___ours, BPF_TOKEN_CREATE___ours);
    map_create = bpf_core_enum_value(enum bpf_cmd___ours, BPF_MAP_CREATE___ours);
    pid_offset = bpf_core_field_offset(task->pid);
    size = bpf_core_type_size(struct task_struct);
    return XDP_PASS;
}
"""
MISSING = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct bpf_map_info___none { int no_kernel_has_it; } __attribute__((preserve_access_index));
SEC("xdp") int look(struct xdp_md *ctx)
{
    struct bpf_map_info___none *info = (void *)(long)ctx->data;

    if ((void *)(info + 64) > (void *)(long)ctx->data_end)
        return 0;
    return info->no_kernel_has_it;
}
"""


@pytest.fixture
def btf():
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        pytest.skip("this kernel was built without CONFIG_DEBUG_INFO_BTF")
    return vmlinux_codecs().btf


def test_relocations_tell_what_this_kernel_has(bpf, btf):
    """The expected values are those of the kernel's own BTF."""
    obj = bpf.load(code=CODE)
    obj.programs.look.run(bytes(64))
    task = btf.find("task_struct")
    members = {m.name: m.bit_offset // 8 for m in task.members()}
    commands = dict(btf.find("bpf_cmd").enumerators())
    g = obj.globals
    assert g.has_new == ("__state" in members)
    assert g.has_old == ("state" in members)
    assert g.has_command == ("BPF_TOKEN_CREATE" in commands)
    assert g.map_create == commands["BPF_MAP_CREATE"] == 0
    assert g.pid_offset == members["pid"]
    assert g.size == task.size


def test_a_field_that_no_kernel_has_is_refused_as_production_would(bpf):
    with pytest.raises(LoadError) as caught:
        bpf.load(code=MISSING)
    assert "no_kernel_has_it" in str(caught.value)
