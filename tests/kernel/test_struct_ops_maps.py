"""Tests struct_ops maps: attach() registers them, and they read as the kernel's struct."""

import contextlib
import errno
import socket

import pytest

from pytest_bpfmaps import AttachError, LoaderError, LoadError, UnsupportedError
from pytest_bpfmaps.libbpf import version as libbpf_version

pytestmark = pytest.mark.bpf_requires("struct_ops", map_type="struct_ops")

CODE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
int inits;

SEC("struct_ops/t_init") void BPF_PROG(t_init, struct sock *sk) { inits++; }
SEC("struct_ops/t_ssthresh") __u32 BPF_PROG(t_ssthresh, struct sock *sk) { return 2; }
SEC("struct_ops/t_grow") void BPF_PROG(t_grow, struct sock *sk, __u32 ack, __u32 acked) { }
#ifndef NO_UNDO
SEC("struct_ops/t_undo") __u32 BPF_PROG(t_undo, struct sock *sk) { return 10; }
#endif

SEC(".struct_ops")
struct tcp_congestion_ops tiny = {
    .init = (void *)t_init,
    .ssthresh = (void *)t_ssthresh,
    .cong_avoid = (void *)t_grow,
#ifndef NO_UNDO
    .undo_cwnd = (void *)t_undo,
#endif
    .name = "bpfmaps_tiny",
};
"""


@pytest.fixture
def load(bpf):
    return lambda **options: bpf.load(code=CODE, **options)


def use(name):
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)


def test_it_is_registered_while_it_is_attached(load):
    obj = load()
    m = obj.maps.tiny
    assert m.state.name == "INIT"
    assert str(m.type) == "struct_ops"
    with pytest.raises(FileNotFoundError):
        use(b"bpfmaps_tiny")
    with obj.attach():
        use(b"bpfmaps_tiny")
        assert m.state.name == "INUSE"
        data = m.value["data"]
        assert data["name"] == "bpfmaps_tiny"
        assert data["init"] == obj.programs.t_init.id
        assert data["undo_cwnd"] == obj.programs.t_undo.id
        assert data["set_state"] == 0
        assert m[0]["data"]["name"] == "bpfmaps_tiny"
    assert m.state.name != "INUSE"
    with pytest.raises(FileNotFoundError):
        use(b"bpfmaps_tiny")


def test_a_name_can_be_registered_once(load):
    one, two = load(), load()
    with one.attach():
        with pytest.raises(
            AttachError, match=r"(?s)cannot register map 'tiny' \(struct_ops\).*EEXIST"
        ) as caught:
            two.attach()
        assert caught.value.errno == errno.EEXIST


def test_the_kernel_wants_certain_functions(load):
    with pytest.raises(AttachError, match=r"cannot register map 'tiny' .*requires functions that it lacks"):
        load(defines={"NO_UNDO": None}).attach()


TWO = (
    CODE.replace("NO_UNDO", "NEVER")
    + """
SEC(".struct_ops")
struct tcp_congestion_ops small = {
    .init = (void *)t_init,
    .ssthresh = (void *)t_ssthresh,
    .cong_avoid = (void *)t_grow,
    .undo_cwnd = (void *)t_undo,
    .name = "bpfmaps_small",
};
"""
)


def test_one_of_several_is_registered_alone(bpf):
    obj = bpf.load(code=TWO)
    with obj.maps.small.attach():
        use(b"bpfmaps_small")
        with pytest.raises(FileNotFoundError):
            use(b"bpfmaps_tiny")
    with pytest.raises(FileNotFoundError):
        use(b"bpfmaps_small")


def test_all_of_several_are_registered_together(bpf):
    with bpf.load(code=TWO).attach():
        use(b"bpfmaps_small")
        use(b"bpfmaps_tiny")


def test_one_of_several_is_created_alone(bpf):
    obj = bpf.load(code=TWO, maps={"small": {"autocreate": False}})
    assert [m.name for m in obj.maps if str(m.type) == "struct_ops"] == ["tiny"]
    with obj.attach():
        use(b"bpfmaps_tiny")
        with pytest.raises(FileNotFoundError):
            use(b"bpfmaps_small")


def test_a_map_that_was_found_by_its_id_is_not_registered(bpf, load):
    with pytest.raises(UnsupportedError, match=r"bpf\.load"):
        bpf.map_by_id(load().maps.tiny.id).attach()


WITH_XDP = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("struct_ops") __u32 half(__u64 *ctx) { return 2; }
SEC("struct_ops") __u32 back(__u64 *ctx) { return 2; }
SEC("struct_ops") void avoid(__u64 *ctx) {}
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC(".struct_ops") struct tcp_congestion_ops control = {
    .ssthresh = (void *)half, .undo_cwnd = (void *)back, .cong_avoid = (void *)avoid, .name = "bpfmaps_t",
};
"""


@pytest.mark.parametrize("options", [{}, {"maps": {"control": {"autocreate": False}}}], ids=["", "left out"])
def test_an_object_of_which_other_programs_are_loaded(bpf, options):
    """libbpf 1.1 crashes here: it loads the kernel's types only when a loaded program needs them."""
    obj = bpf.load(code=WITH_XDP, programs=["pass"], **options)
    assert obj.programs["pass"].run(bytes(64)).retval == 2


def test_an_object_without_programs(bpf):
    code = (
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\nSEC(".struct_ops") struct tcp_congestion_ops o;'
    )
    if libbpf_version() < (1, 5):
        with pytest.raises(LoadError, match=r"struct_ops maps: it has no program(.|\n)*-> fill in a member"):
            bpf.load(code=code)
    else:
        bpf.load(code=code)


def test_a_section_that_this_libbpf_does_not_read(bpf):
    code = WITH_XDP.replace(".struct_ops", ".struct_ops.link")
    if libbpf_version() >= (1, 2):
        with contextlib.suppress(LoadError):  # Linux before 6.4 refuses the flag BPF_F_LINK
            assert bpf.load(code=code).maps.control.flags
        return
    with pytest.raises(LoadError, match=r"its struct is in SEC\(\"\.struct_ops\.link\"\), which libbpf 1"):
        bpf.load(code=code)


def test_a_program_that_no_struct_has(bpf):
    code = WITH_XDP.replace(".undo_cwnd = (void *)back, ", "")
    if libbpf_version() < (1, 5):
        with pytest.raises(LoadError, match=r"'back'.*: the kernel takes .*, and no struct has it"):
            bpf.load(code=code)
    remedy = {"back": {"autoload": False}}
    assert "control" in bpf.load(code=code, programs=remedy).maps


def test_a_program_for_two_members(bpf):
    with pytest.raises(
        LoadError, match=r"program half is .*, and can't be undo_cwnd, too(.|\n)*-> write another"
    ):
        bpf.load(code=WITH_XDP.replace("(void *)back", "(void *)half"))


def test_a_member_that_the_kernel_lacks(bpf):
    code = WITH_XDP.replace(".ssthresh =", ".absent = (void *)half, .ssthresh =").replace(
        '#include "vmlinux.h"',
        """#include <linux/bpf.h>
        struct tcp_congestion_ops {
            __u32 (*ssthresh)(void *sk); __u32 (*undo_cwnd)(void *sk); void (*cong_avoid)(void *sk);
            __u32 (*absent)(void *sk); char name[16];
        };""",
    )
    program = '#ifdef HAS_ABSENT\nSEC("struct_ops") __u32 more(__u64 *ctx) { return 2; }\n#endif\n'
    code = code.replace('SEC("xdp")', program + 'SEC("xdp")')
    code = code.replace(".absent = (void *)half,", "\n#ifdef HAS_ABSENT\n.absent = (void *)more,\n#endif\n")
    with pytest.raises(LoadError, match=r"struct of control has the member absent, .* of Linux") as refused:
        bpf.load(code=code, defines={"HAS_ABSENT": 1})
    assert "between #ifdef HAS_ABSENT and #endif" in str(refused.value)
    bpf.load(code=code)  # the remedy


def test_a_member_of_vmlinux_h_that_nothing_sets(bpf, agent_binary):
    """An agent's own libbpf refuses it, if it is older than 1.5."""
    more = "struct tcp_congestion_ops { __u32 (*absent)(void *sk); "
    own = WITH_XDP.replace(
        '#include "vmlinux.h"',
        """#define tcp_congestion_ops other
        #include "vmlinux.h"
        #undef tcp_congestion_ops
        struct tcp_congestion_ops {
            __u32 (*ssthresh)(void *sk); __u32 (*undo_cwnd)(void *sk); void (*cong_avoid)(void *sk);
            char name[16];
        };""",
    )
    command = [
        agent_binary,
        "load",
        bpf.compile(code=own.replace("struct tcp_congestion_ops {", more)),
        "wait",
    ]
    if libbpf_version() < (1, 5):
        with pytest.raises(LoaderError, match="has the member absent, which the struct of Linux") as refused:
            bpf.start(command, ready="waiting")
        assert "if nothing sets absent: libbpf before 1.5 refuses it" in str(refused.value)
    bpf.start([agent_binary, "load", bpf.compile(code=own), "wait"], ready="waiting")  # the remedy


def test_a_program_of_another_type_in_a_struct(bpf):
    code = WITH_XDP.replace("(void *)back", "(void *)pass")
    with pytest.raises(LoadError, match=r"the program pass, which is none of SEC\(\"struct_ops\"\)"):
        bpf.load(code=code)
