"""Tests agents that attach to interfaces by tcx and netkit, with links and without."""

from __future__ import annotations

import subprocess

import pytest
from build_agents import AGENTS
from installed import installed

from pytest_bpfmaps import ExpectationError

PROGRAM = "send_event"
# type of link: (interface, words for the place, number in enum bpf_attach_type)
PLACES = {
    "tcx": [("ve0", "ingress", 46), ("ve0", "egress", 47)],
    "netkit": [("bnk", "primary", 54), ("bnk", "peer", 55)],
}


@pytest.fixture
def start(bpf, agent_binary):
    """Starts an agent with the programs of the network. It closes nothing before it ends."""
    made = bpf.compile(AGENTS / "network.bpf.c")

    def start(netns, *words):
        return bpf.start([agent_binary, "load", made, *map(str, words), "wait"], netns=netns, ready="waiting")

    return start


@pytest.fixture(
    params=[
        pytest.param("tcx", marks=pytest.mark.bpf_requires("tcx/ingress")),
        pytest.param("netkit", marks=pytest.mark.bpf_requires("netkit/primary")),
    ]
)
def kind(request):
    return request.param


@pytest.fixture
def namespace(bpf_netns, kind):
    """A network namespace with the interface of `PLACES`."""
    made = bpf_netns()
    device = "veth" if kind == "tcx" else kind
    with made.enter():
        run("ip", "link", "add", PLACES[kind][0][0], "type", device)
    return made


def run(*words):
    subprocess.run(words, check=True)


def left_by(bpf, agent):
    agent.terminate()
    assert agent.wait() == 0
    with pytest.raises(ExpectationError) as failed:
        bpf.nothing_left(agent, timeout=0.1)
    return str(failed.value)


def test_links(bpf, start, namespace, kind):
    words = [(PROGRAM, interface, number) for interface, _, number in PLACES[kind]]
    agent = start(namespace, "link", *words[0], "link", *words[1])
    assert agent.links == [(PROGRAM, kind, f"{interface} {where}") for interface, where, _ in PLACES[kind]]
    assert [each.attach_type for each in agent.links] == [f"{kind}_{where}" for _, where, _ in PLACES[kind]]
    agent.terminate()
    assert agent.wait() == 0
    bpf.nothing_left(agent)


def test_a_pinned_link(bpf, start, namespace, kind, bpffs):
    interface, where, number = PLACES[kind][0]
    pin = bpffs / "link"
    agent = start(namespace, "link", PROGRAM, interface, number, "pin-link", pin)
    assert [each.pins for each in agent.links] == [(str(pin),)]
    told = left_by(bpf, agent)
    assert f"  program {PROGRAM} at {interface} {where} ({kind})\n" in told
    installed("bpftool")
    run("sh", "-ec", told.partition("By hand: ")[2].splitlines()[0])
    bpf.nothing_left(agent)


def test_without_a_link(bpf, start, namespace, kind):
    interface, where, number = PLACES[kind][1]
    agent = start(namespace, "place", PROGRAM, interface, number, "close")
    assert agent.links == [(PROGRAM, kind, f"{interface} {where}")]
    told = left_by(bpf, agent)
    command = ["bpftool", "net", "detach", "tcx_egress", "dev", interface]
    removes = ["ip", "link", "del", "dev", interface]
    assert f"ip netns exec {namespace.name} {' '.join(command if kind == 'tcx' else removes)}" in told
    usage = subprocess.run([installed("bpftool"), "net", "help"], capture_output=True, text=True, check=False)
    with namespace.enter():
        run(*(command if kind == "tcx" and "tcx_egress" in usage.stderr else removes))
    bpf.nothing_left(agent)
