"""Tests agents whose programs are attached to maps: to sockmaps, and as functions of registered structs."""

from __future__ import annotations

import subprocess

import pytest
from build_agents import AGENTS
from installed import installed

from pytest_bpfmaps import ExpectationError, LoaderError

SOURCE = AGENTS / "maps.bpf.c"
FUNCTIONS = ("after_a_false_alarm", "after_a_loss", "grow")
struct_ops = pytest.mark.bpf_requires("struct_ops", map_type="struct_ops")


@pytest.fixture
def start(bpf, agent_binary):
    def start(load, *words, defines=None):
        made = bpf.compile(SOURCE, defines=defines or {})
        return bpf.start([agent_binary, load, made, *words, "wait"], ready="waiting")

    return start


@struct_ops
def test_a_registered_struct_stays_and_is_told(bpf, start):
    agent = start("load", "register", "agents", defines={"WITH_STRUCT": 1})
    target = f"struct_ops map id {agent.maps.agents.id}"
    assert agent.links == [(name, "struct_ops", target) for name in FUNCTIONS]
    assert agent.wait_until_attached("grow").id is None
    agent.kill()
    with pytest.raises(ExpectationError, match=f"program grow at {target}") as failed:
        bpf.nothing_left(agent, timeout=0.1)
    command = str(failed.value).partition("By hand: ")[2]
    assert command == f"bpftool {target.replace('map', 'unregister')}"
    installed("bpftool")
    subprocess.run(command.split(), check=True)
    bpf.nothing_left(agent)


@struct_ops
def test_a_struct_with_a_link_goes_with_it(bpf, start):
    try:
        agent = start("load-linked", "register", "agents", defines={"WITH_STRUCT": 1})
    except LoaderError:
        pytest.skip("this kernel has no links for structs (Linux 6.4)")
    assert agent.links == [
        (name, "struct_ops", f"struct_ops map id {agent.maps.agents.id}") for name in FUNCTIONS
    ]
    assert len({each.id for each in agent.links} - {None}) == 1
    agent.terminate()
    agent.wait()
    bpf.nothing_left(agent)


@pytest.mark.bpf_requires("sk_skb", "sk_msg", map_type="sockmap")
def test_programs_at_a_sockmap(bpf, start, bpf_kernel):
    agent = start("load", "at-map", "judge", "sockets", "5", "at-map", "judge_message", "sockets", "7")
    target = f"map id {agent.maps.sockets.id}"
    told = bpf_kernel.version >= (5, 18)
    links = [("judge", "sockmap", target), ("judge_message", "sockmap", target)]
    assert agent.links == (links if told else [])
    if told:
        kinds = {each.program: each.attach_type for each in agent.links}
        assert kinds == {"judge": "sk_skb_stream_verdict", "judge_message": "sk_msg_verdict"}
    agent.terminate()
    agent.wait()
    bpf.nothing_left(agent)


@pytest.mark.bpf_requires("sk_skb", "sk_msg", map_type="sockmap")
def test_a_pinned_sockmap_keeps_them(bpf, start, bpffs, bpf_kernel):
    if bpf_kernel.version < (5, 18):
        pytest.skip("this kernel does not tell what is at a sockmap")
    pin = bpffs / "sockets"
    agent = start("load", "at-map", "judge", "sockets", "5", "pin-map", "sockets", str(pin))
    agent.terminate()
    agent.wait()
    with pytest.raises(ExpectationError, match=r"program judge at map id \d+ \(sockmap\)") as failed:
        bpf.nothing_left(agent, timeout=0.1)
    command = str(failed.value).partition("By hand: ")[2]
    assert "bpftool prog detach id " in command
    installed("bpftool")
    subprocess.run(["sh", "-ec", command], check=True)
    bpf.nothing_left(agent)
