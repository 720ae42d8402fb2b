"""Tests what is said of an agent whose programs need capabilities, or targets that are not there."""

import os
from pathlib import Path

import pytest
from build_agents import AGENTS

from pytest_bpfmaps import LoaderError
from pytest_bpfmaps.kernel.privileges import ALL_CAPABILITIES, effective_capabilities

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
EVENT = 'SEC("tracepoint/sched/sched_process_exce") int event(void *ctx) { return 0; }'
FUNCTION = 'SEC("kprobe/do_unlinkatt") int function(void *ctx) { return 0; }'


def test_the_capability_that_its_programs_need(bpf, agent_binary):
    command = [agent_binary, "load", bpf.compile(AGENTS / "network.bpf.c"), "wait"]
    with pytest.raises(LoaderError) as failed:
        bpf.start(command, caps=["BPF", "PERFMON"], ready="waiting")
    assert "it had CAP_PERFMON, CAP_BPF, but its programs need NET_ADMIN" in str(failed.value)
    advice = "add NET_ADMIN to caps=: NET_ADMIN is for 'count_frames_of_an_interface', 'send_event'"
    assert str(failed.value).endswith(f"-> {advice}")
    with pytest.raises(LoaderError) as failed:
        bpf.start(command, caps=["BPF", "NET_ADMIN"], ready="waiting")
    assert "arithmetic with a pointer; it has no CAP_PERFMON" in str(failed.value)
    assert "-> add PERFMON to caps=; or calculate an offset" in str(failed.value)
    started = bpf.start(command, caps=["BPF", "NET_ADMIN", "PERFMON"], ready="waiting")
    assert len(list(started.programs)) == 3


def test_the_capability_that_stands_for_others_but_not_for_this(bpf, agent_binary, bpf_netns):
    """CAP_SYS_ADMIN loads each program, but netlink asks for CAP_NET_ADMIN, as does tc(8)."""
    words = ["load", bpf.compile(AGENTS / "network.bpf.c"), "tc", "send_event", "lo", "ingress", "wait"]
    with pytest.raises(LoaderError) as failed:
        bpf.start([agent_binary, *words], netns=bpf_netns(), caps=["SYS_ADMIN"], ready="waiting")
    assert "and it had CAP_SYS_ADMIN but not CAP_NET_ADMIN" in str(failed.value)
    assert "-> add NET_ADMIN to caps=: netlink wants it" in str(failed.value)
    bpf.start([agent_binary, *words], netns=bpf_netns(), caps=["SYS_ADMIN", "NET_ADMIN"], ready="waiting")


@pytest.mark.bpf_requires("tracepoint/sched/sched_process_exec")
def test_perf_events_may_need_more_than_their_capability(bpf, agent_binary):
    """As on Debian's kernels, which have 3 there."""
    paranoid = Path("/proc/sys/kernel/perf_event_paranoid")
    code = HEAD + EVENT.replace("exce", "exec")
    command = [agent_binary, "load", bpf.compile(code=code), "attach", "event", "wait"]
    caps = ["BPF", "PERFMON", "NET_ADMIN"]
    before = paranoid.read_text()
    try:
        paranoid.write_text("3")
        if "Debian" in os.uname().version:
            with pytest.raises(LoaderError) as failed:
                bpf.start(command, caps=caps, ready="waiting")
            told = str(failed.value)
            assert "it had no CAP_SYS_ADMIN; kernels of Debian demand it for perf events" in told
            assert told.endswith("-> add SYS_ADMIN to caps=, or sysctl kernel.perf_event_paranoid=2")
        bpf.start(command, caps=[*caps, "SYS_ADMIN"], ready="waiting")  # the first remedy
        paranoid.write_text("2")
        bpf.start(command, caps=caps, ready="waiting")  # the second
    finally:
        paranoid.write_text(before)


UNKNOWN_TYPE = """
struct { __uint(type, 999);
	__uint(max_entries, 1); __type(key, int); __type(value, int); } newer SEC(".maps");
SEC("xdp") int use(void *ctx) { int key = 0; return bpf_map_lookup_elem(&newer, &key) != 0; }
"""
TOO_LARGE = """
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, int);
	__uint(value_size, 40000);
} large SEC(".maps");
SEC("xdp") int use(void *ctx) { int key = 0; return bpf_map_lookup_elem(&large, &key) != 0; }
"""


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (UNKNOWN_TYPE, "the kernel refused the map 'newer': "),
        (
            TOO_LARGE,
            "the kernel refused the map 'large': its values have 40000 bytes, but a per-CPU map's",
        ),
    ],
)
def test_a_map_that_the_kernel_refuses(bpf, agent_binary, code, told):
    made = bpf.compile(code=HEAD + code)
    with pytest.raises(LoaderError) as failed:
        bpf.start([agent_binary, "load", made, "wait"], ready="waiting")
    assert told in str(failed.value)


@pytest.mark.bpf_requires("lsm/socket_bind")
def test_an_attach_point_that_the_kernel_lacks(bpf, agent_binary, bpf_kernel):
    made = bpf.compile(code=HEAD + 'SEC("lsm_cgroup/socket_bind") int judge(void *ctx) { return 1; }')
    command = [agent_binary, "load", made, "wait"]
    if bpf_kernel.has("lsm_cgroup/socket_bind"):
        bpf.start(command, ready="waiting")
        return
    with pytest.raises(LoaderError, match="the kernel refused the program 'judge': ") as failed:
        bpf.start(command, ready="waiting")
    assert ' has no attach point for SEC("lsm_cgroup/socket_bind")' in str(failed.value)
    assert '-> mark the test bpf_requires("lsm_cgroup/socket_bind")' in str(failed.value)


def test_the_limit_of_locked_memory(bpf, agent_binary, bpf_kernel):
    made, caps = bpf.compile(AGENTS / "network.bpf.c"), ["BPF", "NET_ADMIN", "PERFMON"]
    command = ["prlimit", "--memlock=4096:4096", agent_binary, "load", made, "wait"]
    if bpf_kernel.has(helper="bpf_ktime_get_coarse_ns"):  # as old as the accounting by cgroups
        bpf.start(command, caps=caps, ready="waiting")
    else:
        with pytest.raises(LoaderError, match=r"counts maps as locked memory, 5\.11 and later do not"):
            bpf.start(command, caps=caps, ready="waiting")
        bpf.start(command, caps=[*caps, "SYS_RESOURCE"], ready="waiting")  # the remedy: libbpf raises it


def test_a_capability_that_the_test_itself_lacks(bpf, monkeypatch):
    """As in a container, whose root has some capabilities only."""
    own = effective_capabilities() & ~(1 << ALL_CAPABILITIES.index("SYS_TIME"))
    monkeypatch.setattr("pytest_bpfmaps.loaders.spawn.effective_capabilities", lambda: own)
    with pytest.raises(LoaderError) as failed:
        bpf.start(["true"], caps=["BPF", "CAP_SYS_TIME"])
    assert "cannot start a process with CAP_SYS_TIME: this process itself does not have it" in str(
        failed.value
    )


def test_an_interface_that_has_a_program(bpf, agent_binary, bpf_netns):
    inside, made = bpf_netns(), bpf.compile(AGENTS / "network.bpf.c")
    program = "count_frames_of_an_interface"

    def start(how, where):
        return bpf.start(
            [agent_binary, "load", made, how, program, "lo", "wait"], netns=where, ready="waiting"
        )

    start("xdp-link", inside)
    for how, words in (
        ("xdp-link", "failed to attach to xdp: "),
        ("xdp", "Can't replace active BPF XDP link"),
    ):
        with pytest.raises(
            LoaderError, match=f"another program is attached there already \\({words}"
        ) as failed:
            start(how, inside)
        assert "start the agent in a new one: netns=bpf_netns()" in str(failed.value)
        start(how, bpf_netns())  # the remedy


@pytest.mark.bpf_requires("tracepoint/sched/sched_process_exec", "kprobe/do_unlinkat")  # the right names
@pytest.mark.parametrize(
    ("code", "name", "why"),
    [
        (
            EVENT,
            "event",
            "sched has no tracepoint 'sched_process_exce'(?s:.*)did you mean 'sched_process_exec'",
        ),
        (FUNCTION, "function", "'do_unlinkatt'(?s:.*)did you mean 'do_unlinkat'"),
    ],
)
def test_a_target_that_is_not_there(bpf, agent_binary, code, name, why):
    with pytest.raises(LoaderError, match=why):
        bpf.start(
            [agent_binary, "load", bpf.compile(code=HEAD + code), "attach", name, "wait"], ready="waiting"
        )


@pytest.mark.bpf_requires("fentry/do_unlinkat")  # the right name
def test_a_function_that_the_kernels_types_lack(bpf, agent_binary):
    code = HEAD + 'SEC("fentry/do_unlinkatt") int function(void *ctx) { return 0; }'
    with pytest.raises(LoaderError) as failed:
        bpf.start([agent_binary, "load", bpf.compile(code=code), "wait"], ready="waiting")
    assert "this kernel has no function 'do_unlinkatt', or it is inlined everywhere" in str(failed.value)
    assert "-> did you mean 'do_unlinkat'" in str(failed.value)
