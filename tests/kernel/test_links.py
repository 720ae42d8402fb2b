"""Tests the facts about links of tracing programs; replacing their program; pinning them."""

import errno
import os

import pytest

from pytest_bpfmaps import AttachError
from pytest_bpfmaps.libbpf import lib

PASS = 'SEC("xdp") int pass_all(struct xdp_md *ctx) { return 2; }'
RAW = """
int first_runs, second_runs;
SEC("raw_tp/sys_enter") int first(void *ctx) { __sync_fetch_and_add(&first_runs, 1); return 0; }
SEC("raw_tp/sys_enter") int second(void *ctx) { __sync_fetch_and_add(&second_runs, 1); return 0; }
"""


@pytest.mark.bpf_requires("raw_tp/sys_enter")
class TestRawTracepoints:
    def test_info(self, load_code):
        obj = load_code(RAW)
        with obj.programs.first.attach() as link:
            info = link.info
            assert (str(info.type), info.program_id) == ("raw_tracepoint", obj.programs.first.id)
            assert info.id > 0
            assert info.target == {"tracepoint": "sys_enter"}

    def test_a_detached_link_says_so(self, load_code):
        link = load_code(RAW).programs.first.attach()
        link.detach()
        link.detach()
        with pytest.raises(AttachError, match="it is detached already"):
            _ = link.info

    def test_a_program_knows_whether_it_is_attached(self, load_code):
        obj = load_code(RAW)
        with obj.programs.first.attach():
            assert (obj.programs.first.attached, obj.programs.second.attached) == (True, False)
        assert not obj.programs.first.attached

    def test_a_program_of_the_same_name_in_another_object_is_another(self, load_code, veth):
        one, two = load_code(PASS), load_code(PASS)
        with one.programs.pass_all.attach(interface=veth.near) as link:
            assert (one.programs.pass_all.attached, two.programs.pass_all.attached) == (True, False)
            link.update(two.programs.pass_all)
            assert not one.programs.pass_all.attached
            assert link.info.program_id == two.programs.pass_all.id

    def test_what_the_kernel_can_not_replace(self, load_code):
        obj = load_code(RAW)
        with obj.programs.first.attach() as link:
            with pytest.raises(
                AttachError, match=r"cannot put program 'second'.* in place of program 'first'"
            ):
                link.update(obj.programs.second)
            assert link.info.program_id == obj.programs.first.id

    def test_a_pinned_link_outlives_its_object(self, bpf, load_code):
        obj = load_code(RAW)
        path = bpf.pin_root / "watch"
        link = obj.programs.first.attach()
        link.pin(path)
        assert path.exists()
        link.unpin()
        assert not path.exists()
        link.close()


@pytest.mark.bpf_requires("iter/task")
def test_an_iterator_s_program_is_replaced(bpf):
    code = """
    #include "vmlinux.h"
    #include <bpf/bpf_helpers.h>
    #include <bpf/bpf_tracing.h>
    char LICENSE[] SEC("license") = "GPL";
    SEC("iter/task") int one(struct bpf_iter__task *ctx)
    { if (!ctx->task) BPF_SEQ_PRINTF(ctx->meta->seq, "one\\n"); return 0; }
    SEC("iter/task") int two(struct bpf_iter__task *ctx)
    { if (!ctx->task) BPF_SEQ_PRINTF(ctx->meta->seq, "two\\n"); return 0; }
    """
    obj = bpf.load(code=code)
    with obj.programs.one.attach() as link:
        assert list(link) == ["one"]
        link.update(obj.programs.two)
        assert list(link) == ["two"]
        assert link.info.program_id == obj.programs.two.id
        assert link.info.target == {"iterator": "task"}


@pytest.mark.bpf_requires("kprobe/do_sys_openat2")
def test_info_of_a_kprobe(load_code):
    """The kernel has this kind of link from Linux 5.15 on, and reports its target from 6.6 on."""
    obj = load_code('SEC("kprobe/do_sys_openat2") int watch(void *ctx) { return 0; }')
    with obj.attach() as links:
        (link,) = links
        try:
            info = link.info
        except AttachError:
            return  # it is a perf event, and not a link
        assert (str(info.type), info.program_id) == ("perf_event", obj.programs.watch.id)
        assert info.target in ({}, {"event": "kprobe", "function": "do_sys_openat2", "offset": 0})


@pytest.mark.bpf_requires("fentry/do_sys_openat2")
def test_info_of_a_trampoline(bpf):
    code = """
    #include "vmlinux.h"
    #include <bpf/bpf_helpers.h>
    char LICENSE[] SEC("license") = "GPL";
    SEC("fentry/do_sys_openat2") int watch(void *ctx) { return 0; }
    """
    obj = bpf.load(code=code)
    with obj.attach() as links:
        (link,) = links
        assert str(link.info.type) == "tracing"
        assert link.info.target["attach_type"] == "trace_fentry"


@pytest.mark.bpf_requires("raw_tp/sys_enter")
def test_links_go_with_their_object(load_code):
    obj = load_code(RAW)
    links = [*obj.attach()]
    ids = [link.info.id for link in links]
    for each in ids:
        os.close(lib.bpf_link_get_fd_by_id(each))
    obj.close()
    obj.close()
    assert len(ids) == 2
    assert [lib.bpf_link_get_fd_by_id(each) for each in ids] == [-errno.ENOENT] * 2
    for link in links:
        with pytest.raises(AttachError, match="it is detached already"):
            _ = link.info


def test_an_object_without_targets_says_how_each_program_is_attached(load_code):
    programs = """
    SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
    SEC("cgroup_skb/egress") int pass(struct __sk_buff *skb) { return 1; }
    """
    fix = r'programs\.drop\.attach\(interface="veth0"\), obj\.programs\.pass\.attach\(cgroup=bpf_cgroup\)'
    with pytest.raises(AttachError, match=rf"(?s)none of its sections names a target.*{fix}"):
        load_code(programs).attach()
