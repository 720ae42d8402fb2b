"""Tests programs that are loaded for one interface, and the kfuncs for metadata of its driver."""

import pytest

from pytest_bpfmaps import LoadError

FLAG = 64  # BPF_F_XDP_DEV_BOUND_ONLY
FRAME = bytes.fromhex("ffffffffffff 020000000001 0800") + bytes(50)
CODE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

extern int bpf_xdp_metadata_rx_hash(
    const struct xdp_md *ctx, __u32 *hash, enum xdp_rss_hash_type *type) __ksym;
__u32 hash, runs;
int error = 1;

SEC("xdp") int look(struct xdp_md *ctx)
{
    enum xdp_rss_hash_type type;

    error = bpf_xdp_metadata_rx_hash(ctx, &hash, &type);
    runs++;
    return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""
pytestmark = pytest.mark.bpf_requires("bpf_xdp_metadata_rx_hash")


@pytest.fixture
def veth(bpf_netns):
    near, far = bpf_netns("near"), bpf_netns("far")
    return near.veth_to(far)


def test_the_remedy_loads_it(bpf, veth):
    with pytest.raises(LoadError) as caught:
        bpf.load(code=CODE)
    said = str(caught.value)
    assert "but the program is not loaded for an interface" in said
    assert 'programs={"NAME": {"ifindex": interface.index, "flags": 64}}' in said
    with veth.far.netns.enter():
        loaded = bpf.load(code=CODE, programs={"look": {"ifindex": veth.far.index, "flags": FLAG}})
    loaded.programs.look.attach(interface=veth.far)
    veth.near.send(FRAME)
    bpf.wait_until(lambda: loaded.globals.runs)
    assert loaded.globals.error == 0
    assert loaded.globals.hash != 0


def test_for_the_hardware_of_a_veth(bpf, veth):
    index = veth.far.index
    why = (
        rf"the driver of interface {index} does not run programs in its hardware: E.*"
        r"\n(?s:.*)add 64, BPF_F_"
    )
    with veth.far.netns.enter(), pytest.raises(LoadError, match=why):
        bpf.load(code=CODE, programs={"look": {"ifindex": index}})


def test_for_an_interface_of_another_namespace(bpf, veth):
    index = veth.far.index + 1000
    why = rf"(?s)namespace has no interface {index} .*with netns\.enter\(\): bpf\.load"
    with veth.far.netns.enter(), pytest.raises(LoadError, match=why):
        bpf.load(code=CODE, programs={"look": {"ifindex": index, "flags": FLAG}})


def test_a_rejected_program_is_rejected_for_the_same_reason_again(bpf, veth):
    """The whole log comes from a second load, for the same interface."""
    wrong = CODE.replace("runs++;", "runs = *(__u32 *)(long)ctx->data;")
    with veth.far.netns.enter(), pytest.raises(LoadError) as caught:
        bpf.load(code=wrong, programs={"look": {"ifindex": veth.far.index, "flags": FLAG}})
    assert "device-bound" not in str(caught.value)
    assert "packet" in str(caught.value)
