"""Tests what an agent that has ended left behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from build_agents import AGENTS
from installed import installed

from pytest_bpfmaps import ExpectationError
from pytest_bpfmaps.kernel.program_info import loaded_ids
from pytest_bpfmaps.kernel.release import is_emulated

LONG = "count_frames_of_an_interface"


@pytest.fixture
def start(bpf, agent_binary):
    made = bpf.compile(AGENTS / "network.bpf.c")

    def start(*words, **options):
        return bpf.start([agent_binary, "load", made, *words, "wait"], ready="waiting", **options)

    return start


def stop(agent):
    agent.terminate()
    assert agent.wait() == 0


def test_an_agent_that_tidies_up(bpf, start, bpf_cgroup):
    agent = start("cgroup-link", "let_out", bpf_cgroup.path)
    assert len(agent.links) == 1
    assert len(agent.maps) == 5
    stop(agent)
    bpf.nothing_left(agent)


def test_one_that_was_never_looked_at(bpf, start):
    agent = start()
    stop(agent)
    bpf.nothing_left(agent)


@pytest.mark.parametrize("look", [True, False])
def test_what_stays_attached(bpf, start, bpf_netns, bpf_cgroup, look):
    left = bpf_netns().veth_to(bpf_netns())[0]
    agent = start(
        *("xdp", LONG, left.name, "tc", "send_event", left.name, "ingress"),
        *("cgroup", "let_out", bpf_cgroup.path),
        netns=left.netns,
    )
    if look:
        assert len(agent.links) == 3
    stop(agent)
    with pytest.raises(ExpectationError) as failed:
        bpf.nothing_left(agent, timeout=0.1)
    told = str(failed.value)
    assert f"process {agent.pid} " in told
    assert "left something behind: 3 things\n" in told
    assert f"  program {LONG} at {left.name} (xdp)\n" in told
    assert f"  program send_event at {left.name} ingress (tc)\n" in told
    assert f"  program let_out at {bpf_cgroup.path} (cgroup)\n" in told
    inside = f"ip netns exec {left.netns.name}"
    assert f"{inside} ip link set dev {left.name} xdpgeneric off" in told
    assert f"{inside} tc filter del dev {left.name} ingress pref 49152 handle 0x1 bpf" in told
    assert f"bpftool cgroup detach {bpf_cgroup.path} cgroup_inet_egress id " in told
    installed("bpftool")
    commands = told.partition("By hand: ")[2].splitlines()[0]
    subprocess.run(["sh", "-ec", commands], check=True)  # the remedy
    bpf.nothing_left(agent)


def test_pins(bpf, start, bpffs, bpf_cgroup):
    agent = start(
        *("cgroup-link", "let_out", bpf_cgroup.path, "pin-link", bpffs / "link"),
        *("pin-map", "events", bpffs / "events"),
    )
    stop(agent)
    with pytest.raises(ExpectationError) as failed:
        bpf.nothing_left(agent, timeout=0.1)
    told = str(failed.value)
    assert f"  program let_out at {bpf_cgroup.path} (cgroup)\n" in told
    assert f"  pin {bpffs}/events of map id " in told
    assert f"  pin {bpffs}/link of link id " in told
    for name in ("link", "events"):
        assert f"rm {bpffs}/{name}" in told
        (bpffs / name).unlink()  # the remedy
    bpf.nothing_left(agent)


def test_processes(bpf):
    agent = bpf.start(["sh", "-c", "sleep 60 & exit 0"])
    agent.wait_until(lambda: agent.pids != [agent.pid], "waited", 10, lambda: None)
    with pytest.raises(ExpectationError, match=r"(?s)process \d+ \(sleep\) still runs\n.*-> .*kill \d+"):
        bpf.nothing_left(agent, timeout=0.1)
    agent.kill()
    bpf.nothing_left(agent)


def what_this_process_has(cgroup):
    """Returns how many descriptors, threads and children it has, and what is below a control group."""
    found = {name: len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task")}
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    below = sorted(path.name for path in cgroup.path.iterdir() if path.is_dir())
    return found, children, below, cgroup.pids


def what_the_kernel_has():
    """Returns what is loaded, mounted and runs: in a guest, no other process adds to that."""
    loaded = {(kind, number) for kind in ("prog", "map", "link") for number in loaded_ids(kind)}
    mounted = {("mount", line.split()[0]) for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    groups = {("cgroup", path) for path, *_ in os.walk("/sys/fs/cgroup")}
    return loaded | mounted | groups | {("file", name) for name in os.listdir("/run")}


def test_a_hundred_times(bpf, start, bpf_cgroup):
    before, kernel = None, set()
    for number in range(20 if is_emulated() else 100):
        agent = start("cgroup-link", "let_out", bpf_cgroup.path, cgroup=bpf_cgroup.path)
        if number % 10 == 0:
            assert agent.links == [("let_out", str(bpf_cgroup.path))]
        stop(agent)
        bpf.nothing_left(agent)
        agent.close()
        if before is None:
            before, kernel = what_this_process_has(bpf_cgroup), what_the_kernel_has()
    assert what_this_process_has(bpf_cgroup) == before
    if is_emulated():  # the kernel frees some things a moment later
        bpf.wait_until(lambda: what_the_kernel_has() <= kernel, timeout=10)
