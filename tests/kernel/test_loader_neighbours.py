"""Tests that an agent is not credited with what another process does at the same time."""

from __future__ import annotations

import os
import subprocess

import pytest
from build_agents import AGENTS
from installed import installed

from pytest_bpfmaps import ExpectationError
from pytest_bpfmaps.kernel.program_loads import ProgramLoads

LONG = "count_frames_of_an_interface"
DOUBT = "unless another process has made it: the kernel does not tell"


@pytest.fixture
def words(bpf, agent_binary):
    """Returns the command of an agent that loads the programs of the network, and does more."""
    return lambda *more: [agent_binary, "load", bpf.compile(AGENTS / "network.bpf.c"), *more, "wait"]


def stop(agent):
    agent.terminate()
    assert agent.wait() == 0


def test_two_agents_at_the_same_time(bpf, words, bpf_netns, bpffs):
    """Both close their descriptors, and live by what they have attached and pinned."""
    left = bpf_netns().veth_to(bpf_netns())[0]
    quiet = bpf.start(words("close"), ready="waiting")
    counts = "counts_of_each_interface"
    first = bpf.start(
        words("xdp", LONG, left.name, "pin-map", counts, bpffs / "counts", "close"),
        ready="waiting",
        netns=left.netns,
    )
    second = bpf.start(
        words("tc", "send_event", left.name, "ingress", "pin-map", "events", bpffs / "events", "close"),
        ready="waiting",
        netns=left.netns,
    )
    for _ in range(2):
        assert quiet.links == []
        assert first.links == [(LONG, left.name)]
        assert second.links == [("send_event", f"{left.name} ingress")]
        assert (list(quiet.pins), list(first.pins)) == ([], [f"{bpffs}/counts"])
        assert ([p.name for p in quiet.programs], [p.name for p in first.programs]) == ([], [LONG])
    for each in (quiet, first, second):
        stop(each)
    bpf.nothing_left(quiet)
    with pytest.raises(ExpectationError) as failed:
        bpf.nothing_left(first, timeout=0.1)
    assert f"  program {LONG} at {left.name} (xdp)\n" in str(failed.value)
    assert f"  pin {bpffs}/counts of map id " in str(failed.value)
    assert DOUBT not in str(failed.value)
    assert "send_event" not in str(failed.value)
    assert f"{bpffs}/events" not in str(failed.value)


def test_what_is_loaded_in_the_background(bpf, words, bpf_cgroup):
    quiet = bpf.start(["sleep", "60"])
    command = list(map(str, words("cgroup", "let_out", bpf_cgroup.path, "close")))
    agent = bpf.start(["sh", "-c", 'env -i setsid "$@" & exit 0', "sh", *command], ready="waiting")
    assert agent.links == [("let_out", str(bpf_cgroup.path))]
    assert quiet.links == []
    stop(agent)


def test_a_program_that_only_a_map_holds(bpf, agent_binary):
    """A tail call's program has no descriptor, and is attached nowhere."""
    made = bpf.compile(
        code="#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("socket") int called(void *ctx) { return 0; }\n'
        "struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 1); __uint(key_size, 4);\n"
        '__array(values, int(void *)); } calls SEC(".maps") = { .values = { [0] = (void *)&called } };\n'
        'SEC("socket") int calling(void *ctx) { bpf_tail_call(ctx, &calls, 0); return 1; }\n'
    )
    agent = bpf.start([agent_binary, "load", made, "forget", "called", "wait"], ready="waiting")
    assert [each.name for each in agent.programs] == ["called", "calling"]
    assert agent.programs.calling.run(bytes(64)).retval == 0
    stop(agent)
    bpf.nothing_left(agent)


def test_what_came_after_the_end_is_not_its_own(bpf, words, bpf_cgroup, bpffs):
    agent = bpf.attach_to(bpf.start(words("close"), ready="waiting").pid)
    agent.terminate()
    agent.wait()
    later = bpf.start(
        words("cgroup", "let_out", bpf_cgroup.path, "pin-map", "events", bpffs / "events", "close"),
        ready="waiting",
    )
    bpf.nothing_left(agent)
    stop(later)


def test_a_doubt_is_told(bpf, words, bpf_cgroup, bpffs):
    """Nobody knows what a process has loaded that something else has started."""
    command = words("cgroup", "let_out", bpf_cgroup.path, "pin-map", "events", bpffs / "events", "close")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        agent = bpf.attach_to(process.pid)
        assert process.stdout.readline() == b"waiting\n"
        process.terminate()
    agent.wait()
    with pytest.raises(ExpectationError) as failed:
        bpf.nothing_left(agent, timeout=0.1)
    assert f"  program let_out at {bpf_cgroup.path} (cgroup), {DOUBT}\n" in str(failed.value)


def test_more_programs_than_the_kernel_has_room_to_tell(bpf, monkeypatch):
    """Then nothing is known, instead of some."""
    monkeypatch.setattr("pytest_bpfmaps.kernel.program_records.PAGES", 1)
    for count in (3, 300):
        loads = ProgramLoads()
        child = os.fork()
        if not child:
            loads.follow()
            for _ in range(count):
                bpf.load(code='__attribute__((section("socket"))) int f(void *ctx) { return 0; }').close()
            os._exit(0)
        os.waitpid(child, 0)
        loads.receive()
        known = loads.ids()
        assert (known is None) if count == 300 else len(known) >= 3
        loads.close()
        assert loads.ids() is None


@pytest.mark.parametrize(
    ("workers", "folder"),
    [("1", "$HIDDEN/sub"), ("2", "$HIDDEN/sub"), ("2", "{}/sub")],
)
def test_a_pinned_map_that_no_program_uses(bpf, monkeypatch, bpffs, workers, folder):
    """Nobody knows who made it. With other workers, one of their agents may have."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", workers)
    monkeypatch.setenv("HIDDEN", str(bpffs))
    (bpffs / "sub").mkdir()
    made = f"map create {folder.format(bpffs)}/alone type array key 4 value 4 entries 1 name alone"
    agent = bpf.start(["sh", "-c", f"{installed('bpftool')} {made}"])
    assert agent.wait() == 0
    if workers == "1" or folder == "{}/sub":
        with pytest.raises(ExpectationError, match=rf"pin {bpffs}/sub/alone of map id \d+, {DOUBT}\n"):
            bpf.nothing_left(agent, timeout=0.1)
    else:
        with pytest.warns(UserWarning, match=rf"^pin {bpffs}/sub/alone of map id \d+ came while .* ran\. "):
            bpf.nothing_left(agent, timeout=0.1)
