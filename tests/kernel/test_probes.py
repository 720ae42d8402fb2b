"""Tests probes against the kernel's configuration and behaviour."""

from __future__ import annotations

import os
import subprocess

import pytest
from installed import installed

from pytest_bpfmaps.errors import VerifierError
from pytest_bpfmaps.harness import Bpf
from pytest_bpfmaps.kernel.attach_names import functions
from pytest_bpfmaps.kernel.bpf_types import COMMANDS, MapType, ProgramType
from pytest_bpfmaps.kernel.features import kernel_config, probe
from pytest_bpfmaps.kernel.running_kernel import RunningKernel
from pytest_bpfmaps.kernel.vmlinux_btf import enumerators, program_types, vmlinux_btf

# include/linux/bpf_types.h needs these options for these types; all others need CONFIG_BPF_SYSCALL only
MAP_OPTIONS = {
    MapType.PERF_EVENT_ARRAY: "PERF_EVENTS",
    MapType.STACK_TRACE: "PERF_EVENTS",
    MapType.CGROUP_ARRAY: "CGROUPS",
    MapType.CGROUP_STORAGE: "CGROUP_BPF",
    MapType.PERCPU_CGROUP_STORAGE: "CGROUP_BPF",
    MapType.CGRP_STORAGE: "CGROUPS",
    MapType.INODE_STORAGE: "BPF_LSM",
    MapType.DEVMAP: "NET",
    MapType.DEVMAP_HASH: "NET",
    MapType.CPUMAP: "NET",
    MapType.SK_STORAGE: "NET",
    MapType.SOCKMAP: "NET",
    MapType.SOCKHASH: "NET",
    MapType.REUSEPORT_SOCKARRAY: "INET",
    MapType.XSKMAP: "XDP_SOCKETS",
    MapType.STRUCT_OPS: "BPF_JIT",
    MapType.ARENA: "MMU",
}
DENIED = "EPERM"  # this process has no permission, whatever the kernel's configuration
HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
"""

pytestmark = pytest.mark.usefixtures("bpf_kernel")


@pytest.fixture(autouse=True)
def _btf() -> None:
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        pytest.skip("this kernel has no BTF to compare with: boot one with CONFIG_DEBUG_INFO_BTF=y")


def test_the_lists_of_types_are_those_of_the_newest_kernel() -> None:
    """A type of the kernel that is in no list could not be probed."""
    for kind, enum in ((MapType, "bpf_map_type"), (ProgramType, "bpf_prog_type")):
        listed = enumerators(vmlinux_btf(), enum)
        known = {number: name for name, number in listed.items() if not name.startswith("__MAX")}
        assert set(known) <= {int(t) for t in kind}, f"{enum} of this kernel: {known}"
        for each in kind:
            prefix = "BPF_MAP_TYPE_" if kind is MapType else "BPF_PROG_TYPE_"
            assert listed.get(f"{prefix}{each.name}", each) == each


@pytest.mark.parametrize("type", [t for t in ProgramType if t], ids=str)
def test_program_types_are_those_that_the_verifier_was_built_with(type: ProgramType) -> None:
    answer = probe("program_type", str(type))
    assert (
        bool(answer) == (f"BPF_PROG_TYPE_{type.name}" in program_types(vmlinux_btf())) or DENIED in answer.why
    )


@pytest.mark.parametrize("type", [t for t in MapType if t], ids=str)
def test_map_types_are_those_that_the_kernel_was_built_with(type: MapType) -> None:
    answer = probe("map_type", str(type))
    listed = f"BPF_MAP_TYPE_{type.name}" in enumerators(vmlinux_btf(), "bpf_map_type")
    option = MAP_OPTIONS.get(type)
    settings = kernel_config()
    if not listed or option is None:
        assert bool(answer) == listed or DENIED in answer.why
    elif settings is not None:
        assert bool(answer) == (settings.get(option) == "y") or DENIED in answer.why


STRUCT_OPS = """
SEC("struct_ops/a") __u32 BPF_PROG(a, struct sock *sk) { return 2; }
SEC("struct_ops/b") void BPF_PROG(b, struct sock *sk, __u32 ack, __u32 acked) { }
SEC("struct_ops/c") __u32 BPF_PROG(c, struct sock *sk) { return 2; }
SEC(".struct_ops") struct tcp_congestion_ops ours = {
    .ssthresh = (void *)a, .cong_avoid = (void *)b, .undo_cwnd = (void *)c, .name = "bpfmaps_probe",
};
"""


def test_struct_ops_load_where_the_probe_says_so(bpf) -> None:
    """libbpf's own probe returns a wrong no for Linux 6.1, from libbpf 1.4 on."""
    there = probe("map_type", "struct_ops")
    assert bool(there) == bool(probe("program_type", "struct_ops"))
    if not there:
        pytest.skip(f"this kernel lacks {there.name}: {there.why}; boot one with CONFIG_BPF_JIT=y")
    assert bpf.load(code=HEAD + STRUCT_OPS).maps.ours.type == MapType.STRUCT_OPS


EXTENSION = """
__noinline int replaced(struct xdp_md *ctx) { volatile int result = 1; return result; }
SEC("xdp") int target(struct xdp_md *ctx) { return replaced(ctx); }
"""
REPLACING = 'SEC("freplace") int replacing(struct xdp_md *ctx) { return 2; }'


def test_extensions_load_where_the_probe_says_so(bpf) -> None:
    there = probe("program_type", "ext")
    if not there:
        pytest.skip(f"this kernel lacks {there.name}: {there.why}; pytest --bpf-kernel=6.1 has it")
    target = bpf.load(code=HEAD + EXTENSION).programs.target
    opened = bpf.open(code=HEAD + REPLACING)
    opened.programs.replacing.set_attach_target("replaced", target)
    with opened.load() as obj:
        assert obj.programs.replacing.type == ProgramType.EXT


def test_helpers_that_no_configuration_takes_away() -> None:
    for name in ("bpf_map_lookup_elem", "bpf_ktime_get_ns", "bpf_get_prandom_u32", "bpf_ringbuf_output"):
        assert probe("helper", name), name
    for name in ("bpf_no_such", "bpf_unspec", "vfs_read", "bpf_prog_load"):
        assert not probe("helper", name), name


# a helper, and the option that it needs
HELPER_OPTIONS = {
    "bpf_override_return": "BPF_KPROBE_OVERRIDE",
    "bpf_rc_repeat": "BPF_LIRC_MODE2",
    "bpf_rc_keydown": "BPF_LIRC_MODE2",
    "bpf_rc_pointer_rel": "BPF_LIRC_MODE2",
    "bpf_bind": "INET",
}


@pytest.mark.parametrize(("name", "option"), HELPER_OPTIONS.items())
def test_helpers_that_depend_on_the_configuration(name: str, option: str) -> None:
    settings = kernel_config()
    if settings is None:
        pytest.skip("this kernel's configuration is in neither /proc/config.gz nor /boot")
    if settings.get(option) != "y" and not probe("program_type", "tracing"):
        pytest.skip("this process may not load programs that trace: pytest --bpf-kernel=6.1")
    assert bool(probe("helper", name)) == (settings.get(option) == "y")


def test_helpers_against_bpftool() -> None:
    """It covers the types of programs that bpftool can load.

    bpftool assumes that a helper exists when it does not know the words of a newer verifier's refusal.
    """
    command = [installed("bpftool"), "feature", "probe", "kernel", "full"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if "eBPF helpers supported" not in done.stdout:
        pytest.skip(f"bpftool is for another kernel here: {done.stderr.strip() or done.stdout[:200]}")
    there = {line.removeprefix("\t- ") for line in done.stdout.splitlines() if line.startswith("\t- bpf_")}
    assert len(there) > 100
    denied = {name for name in there if not probe("helper", name)}
    assert denied <= HELPER_OPTIONS.keys()


def test_a_kernel_function_is_no_kfunc() -> None:
    """BTF has functions of all kinds. Programs may call those that the kernel registered for them."""
    for name in ("vfs_read", "bpf_prog_load", "bpf_map_new_fd"):
        if name in functions():
            answer = probe("kfunc", name)
            assert not answer
            assert "not as a kfunc" in answer.why


@pytest.mark.bpf_kernels("5.10", "6.1", "6.12", "7.2")
def test_kfuncs_have_come_with_releases(bpf_kernel: RunningKernel) -> None:
    """``tcp_slow_start`` and ``crash_kexec`` are older than kfuncs, and became kfuncs in 5.13 and 6.1."""
    came = {"tcp_slow_start": (5, 13), "crash_kexec": (6, 1), "bpf_cpumask_create": (6, 3)}
    for name, first in came.items():
        assert bool(probe("kfunc", name)) == (bpf_kernel.version[:2] >= first), name


@pytest.mark.bpf_kernels("6.1", "6.12", "7.2")
def test_kfuncs_of_a_module() -> None:
    subprocess.run(["modprobe", "nf_conntrack"], check=True, timeout=60)
    assert probe("kfunc", "bpf_skb_ct_lookup")


OF_PATH = """
char path[64];
SEC("fentry/filp_close") int closes(__u64 *ctx)
{ struct file *f = (void *)ctx[0]; bpf_d_path(&f->f_path, path, sizeof(path)); return 0; }
"""


@pytest.mark.bpf_requires("fentry/filp_close")
def test_a_helper_that_only_programs_on_some_functions_may_call(bpf: Bpf) -> None:
    """Linux 5.10 allows bpf_d_path() on a few functions, and not in iterators and LSM programs."""
    bpf.load(code=HEAD + OF_PATH)
    assert probe("helper", "bpf_d_path")


@pytest.mark.bpf_requires("fentry/vfs_read")
@pytest.mark.parametrize("kind", ["fentry.s", "fexit.s", "fmod_ret.s"])
def test_tracing_that_may_sleep(bpf: Bpf, kind: str) -> None:
    """Such a program is in a system call, where the kernel can inject errors."""
    code = f'{HEAD}SEC("{kind}/__x64_sys_getpgid") int p(void *ctx) {{ return 0; }}'
    try:
        bpf.load(code=code)
    except VerifierError:
        assert not probe("attach", kind)
    else:
        assert probe("attach", kind)


def test_commands_have_come_with_releases(bpf_kernel: RunningKernel) -> None:
    came = {
        "map_create": (3, 18),
        "BPF_LINK_CREATE": (5, 7),
        "prog_bind_map": (5, 10),
        "token_create": (6, 9),
    }
    for name, first in came.items():
        assert bool(probe("command", name)) == (bpf_kernel.version[:2] >= first), name
    assert not probe("command", "token_creat")


def test_commands_are_those_of_the_kernel() -> None:
    """The kernel has older names for two of them, and may have newer ones than are known here."""
    there = enumerators(vmlinux_btf(), "bpf_cmd")
    for number, name in enumerate(COMMANDS):
        assert there.get(f"BPF_{name.upper()}", number) == number


# a section, and the first release with it; Debian's kernels have all of them
@pytest.mark.bpf_kernels("5.10", "6.1", "6.12", "7.2")
@pytest.mark.parametrize(
    ("section", "first"),
    [
        ("tc/ingress", (4, 5)),
        ("tcx/ingress", (6, 6)),
        ("netkit/primary", (6, 7)),
        ("cgroup/connect4", (4, 17)),
        ("cgroup/connect_unix", (6, 7)),
        ("cgroup/recvmsg4", (5, 2)),
        ("cgroup/getpeername6", (5, 8)),
        ("cgroup/getsockname_unix", (6, 7)),
        ("syscall", (5, 14)),
        ("xdp/devmap", (5, 8)),
        ("xdp.frags", (5, 18)),
        ("sk_reuseport/migrate", (5, 14)),
        ("uprobe.s//bin/true:main", (6, 0)),
        ("uprobe.multi//bin/true:main", (6, 6)),
        ("lsm_cgroup/socket_bind", (6, 0)),
        ("lsm/file_open", (5, 7)),
        ("lsm.s", (5, 10)),
        ("raw_tp.w", (5, 2)),
        ("raw_tracepoint.w", (5, 2)),
        ("fentry/vfs_read", (5, 5)),
        ("freplace/any", (5, 6)),
        ("iter/task", (5, 8)),
        ("struct_ops/ssthresh", (5, 6)),
        ("netfilter", (6, 4)),
        ("ksyscall/openat", (4, 1)),
    ],
)
def test_attach_points_have_come_with_releases(
    bpf_kernel: RunningKernel, section: str, first: tuple[int, int]
) -> None:
    answer = probe("attach", section)
    assert bool(answer) == (bpf_kernel.version[:2] >= first), answer.why


@pytest.mark.bpf_kernels("5.10", "6.1", "6.12", "7.2")
@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("tcp_congestion_ops", (5, 6)),
        ("bpf_dummy_ops", (5, 16)),
        ("Qdisc_ops", (6, 16)),
        ("value", (99, 0)),  # struct bpf_struct_ops_value is the kernel's own
    ],
)
def test_structs_for_struct_ops_have_come_with_releases(
    bpf_kernel: RunningKernel, name: str, first: tuple[int, int]
) -> None:
    answer = probe("struct_ops", name)
    assert bool(answer) == (bpf_kernel.version[:2] >= first), answer.why
    assert bpf_kernel.has(f"struct_ops:{name}") == bool(answer) == bpf_kernel.has(struct_ops=name)


@pytest.mark.bpf_kernels("5.10", "6.1", "6.12", "7.2")
@pytest.mark.parametrize(
    ("section", "why"),
    [
        ("fentry/no_such_function", "no function no_such_function"),
        ("fentry.s/vfs_read", "not sleepable"),
        ("fmod_ret/vfs_read", "not modifiable"),
        ("lsm/no_such_hook", "no LSM hook no_such_hook"),
        ("iter/nothing", "no bpf_iter_nothing"),
        ("kprobe/no_such_function", "no kernel function no_such_function"),
        ("kprobe/init_task", "no kernel function init_task"),
        ("ksyscall/no_such_call", "no system call no_such_call"),
        ("raw_tp/no_such_event", "no raw tracepoint no_such_event"),
        ("nonsense/x", "libbpf does not know this section name"),
    ],
)
def test_attach_points_that_no_kernel_has(section: str, why: str) -> None:
    answer = probe("attach", section)
    assert not answer
    assert why in answer.why


def test_options_that_are_not_set() -> None:
    if kernel_config() is None:
        pytest.skip("this kernel's configuration is in neither /proc/config.gz nor /boot")
    assert probe("config", "CONFIG_BPF_SYSCALL")
    assert probe("config", "BPF_SYSCALL=y")
    assert not probe("config", "BPF_SYSCALL=n")
    assert not probe("config", "NO_SUCH_OPTION")
    hertz = probe("config", "HZ")  # a number, which is never y
    assert hertz, hertz.why
    assert probe("config", f"HZ={kernel_config()['HZ']}")
    assert not probe("config", "HZ=y")
    assert probe("config", "NO_SUCH_OPTION=n")
