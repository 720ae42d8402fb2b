"""Tests what is found of an agent in the kernel: maps, programs, links, pins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from build_agents import AGENTS
from installed import installed

from pytest_bpfmaps import AmbiguousNameError, CaptureTimeoutError, ClosedError, LoaderError, NameLookupError

LONG = "count_frames_of_an_interface"
LINUX_TYPES = "#include <linux/types.h>\n"


@pytest.fixture
def network_object(bpf):
    return bpf.compile(AGENTS / "network.bpf.c")


@pytest.fixture
def start(bpf, agent_binary, network_object):
    """Starts the agent: it loads the programs of the network, and does more as its words say."""

    def start(*words, ready="waiting", **options):
        return bpf.start([agent_binary, "load", network_object, *words, "wait"], ready=ready, **options)

    return start


def bpftool(*words):
    return json.loads(
        subprocess.run([installed("bpftool"), "-j", *words], check=True, capture_output=True).stdout
    )


class TestMapsAndPrograms:
    def test_they_are_those_that_bpftool_shows(self, start):
        before = {kind: {each["id"] for each in bpftool(kind, "list")} for kind in ("map", "prog")}
        agent = start()
        for kind, ours in (("map", agent.maps), ("prog", agent.programs)):
            theirs = {each["id"]: each for each in bpftool(kind, "list")}
            assert {each.id for each in ours} <= theirs.keys() - before[kind]
            assert [each.name[:15] for each in ours] == [theirs[each.id]["name"][:15] for each in ours]
            assert [str(each.type) for each in ours] == [theirs[each.id]["type"] for each in ours]
        assert len(agent.programs) == 3

    def test_a_struct_that_only_another_object_has(self, bpf, agent_binary, network_object):
        """As with cilium/ebpf 0.22, whose maps and programs have only the types that they refer to."""
        late = "struct late { __u32 mark; char %s[12]; } *keeps_the_type;"
        two = [bpf.compile(code=LINUX_TYPES + late % name) for name in ("text", "other")]
        agent = bpf.start([agent_binary, "load", two[0], "load", network_object, "wait"], ready="waiting")
        with agent.maps.events.capture("struct late") as records:
            agent.programs.send_event.run(bytes(64), ctx={"mark": 7})
            records.expect(mark=7, text="!", count=1)
        with pytest.raises(
            NameLookupError, match=r"no struct 'lat' in the types of [^$]*did you mean 'late'"
        ):
            agent.maps.events.capture("lat")
        inner = "struct late { __u32 mark; struct { char %s[6]; } inner[2]; } *keeps_the_type;"
        alike = [bpf.compile(code=LINUX_TYPES + inner % name) for name in ("text", "other")]
        agent = bpf.start([agent_binary, "load", alike[0], "load", alike[1], "load", network_object, "wait"])
        agent.wait_for_output("waiting")
        with pytest.raises(AmbiguousNameError, match="several structs are called 'late'"):
            agent.maps.events.capture("late")
        loads = [word for each in (*two, network_object) for word in ("load", each)]
        agent = bpf.start([agent_binary, *loads, "wait"], ready="waiting")
        with pytest.raises(AmbiguousNameError, match=r"\{mark, other\}; 16 bytes: \{mark, text\}"):
            agent.maps.events.capture("late")
        with agent.maps.events.capture("event") as records:  # of the programs that use the map
            agent.programs.send_event.run(bytes(64), ctx={"mark": 8})
            records.expect(mark=8, count=1)

    def test_a_struct_that_only_the_binary_has(self, bpf, agent_binary, network_object, tmp_path):
        """As with cilium/ebpf 0.11, which gives the kernel fewer types."""
        late = "struct late { __u32 mark; char text[12]; } *keeps_the_type;"
        binary = tmp_path / "agent"
        binary.write_bytes(agent_binary.read_bytes() + bpf.compile(code=LINUX_TYPES + late).read_bytes())
        binary.chmod(0o755)
        agent = bpf.start([binary, "load", network_object, "wait"], ready="waiting")
        with agent.maps.events.capture("late") as records:
            agent.programs.send_event.run(bytes(64), ctx={"mark": 7})
            records.expect(mark=7, text="!", count=1)
        with pytest.raises(NameLookupError, match=r"(?s)no struct 'lat'.*did you mean 'late'"):
            agent.maps.events.capture("lat")

    def test_by_name_and_id(self, start):
        agent = start()
        found = agent.maps.counts_of_each_interface
        assert agent.maps[found.id] is found is agent.maps["counts_of_each_interface"]
        assert agent.maps["counts_of_each_"] is found
        assert "events" in agent.maps
        assert "evnts" not in agent.maps
        assert {m.name for m in agent.maps} >= {"counts_of_each_interface", "events", "queue", "samples"}
        assert len(agent.maps) == 5
        assert agent.programs[LONG].name == LONG
        assert [p.name for p in agent.programs] == [LONG, "send_event", "let_out"]
        with pytest.raises(
            NameLookupError, match=r"no map 'evnts' of process \d+ .*\n  -> did you mean 'events'\?"
        ):
            _ = agent.maps.evnts
        with pytest.raises(NameLookupError, match=r"no program id 0 of process \d+"):
            agent.programs[0]

    def test_values_are_typed(self, start):
        agent = start()
        counts = agent.maps.counts_of_each_interface
        counts[7] = {"packets": 1, "bytes": 2}
        assert counts == {7: {"packets": 1, "bytes": 2}}
        assert counts[7].bytes == 2
        agent.maps.queue.push({"mark": 3, "text": "mine"})
        assert (
            agent.maps.queue.peek().text == "mine"
        )  # the kernel has no types of a queue, the object's BTF has
        assert agent.maps["network.bss"][0].seen == 0

    def test_other_maps_are_not_among_them(self, bpf, start):
        agent = start()
        mine = bpf.create_map("hash", key="u32", value="u32", max_entries=1, name="mine")
        loaded = bpf.load(AGENTS / "network.bpf.c")
        other = start()
        ids = {m.id for m in agent.maps}
        assert not ids & {mine.id, *(m.id for m in loaded.maps), *(m.id for m in other.maps)}
        assert not {p.id for p in agent.programs} & {p.id for p in other.programs}

    def test_what_others_attach_is_not_its_own(self, bpf, start, bpf_netns, bpf_cgroup):
        left = bpf_netns().veth_to(bpf_netns())[0]
        agent = start(netns=left.netns)
        other = start("xdp", LONG, left.name, netns=left.netns)
        with bpf.load(AGENTS / "network.bpf.c").programs.let_out.attach(cgroup=bpf_cgroup):
            assert len(other.links) == 1
            assert agent.links == []
            assert len(agent.programs) == 3

    def test_what_is_attached_in_a_namespace_of_another_worker_is_not_its_own(self, start, network_object):
        """No process has the program open, as after ``ip link set … xdp`` of another test's agent."""
        agent, namespace = start(), "bpfmaps-gw1-1-0-theirs"  # its maker has the id 1
        subprocess.run(["ip", "netns", "add", namespace], check=True)
        try:
            load = ["ip", "link", "set", "lo", "xdpgeneric", "obj", network_object, "sec", "xdp"]
            subprocess.run(["ip", "netns", "exec", namespace, *load], check=True)
            assert agent.links == []
            assert len(agent.programs) == 3
        finally:
            subprocess.run(["ip", "netns", "del", namespace], check=True)

    def test_names_that_several_share(self, bpf, agent_binary, network_object):
        command = (
            f"{agent_binary} load {network_object} wait & {agent_binary} load {network_object} wait; wait"
        )
        agent = bpf.start(["sh", "-c", command], ready=lambda agent: agent.stdout.count("waiting") == 2)
        with pytest.raises(AmbiguousNameError) as failed:
            _ = agent.maps.events
        ids = re.findall(r"maps\[(\d+)\]: <map 'events' \(ringbuf\)", str(failed.value))
        assert len(ids) == 2
        assert "cannot tell which map 'events' is meant" in str(failed.value)
        assert f"-> name it by its id: agent.maps[{ids[0]}]" in str(failed.value)
        assert agent.maps[int(ids[1])].name == "events"

    def test_a_name_that_many_share(self, bpf, agent_binary, network_object):
        loads = ["load", network_object] * 14
        agent = bpf.start([agent_binary, *loads, "wait"], ready="waiting")
        with pytest.raises(AmbiguousNameError, match="14 have that name") as failed:
            _ = agent.maps.events
        listed = re.findall(r"^  maps\[\d+\]: ", str(failed.value), re.MULTILINE)
        last = [each.id for each in agent.maps if each.name == "events"][-1]
        assert len(listed) == 12
        assert f"\n  … and 2 more, up to maps[{last}]\n" in str(failed.value)

    def test_names_that_are_no_text(self, bpf, agent_binary, network_object, bpf_netns, tmp_path):
        """The kernel takes any bytes for the names of processes, interfaces and folders."""
        odd = os.fsdecode(b"\xff\xc2\x85) S")
        binary, folder, network = tmp_path / odd, tmp_path / f"{odd}\xa0", bpf_netns()
        interface = odd.removesuffix(") S")
        binary.symlink_to(agent_binary)
        folder.mkdir()
        with network.enter():
            subprocess.run(["ip", "link", "add", interface, "type", "veth"], check=True)
        subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
        try:
            words = [
                "load",
                network_object,
                "xdp",
                LONG,
                interface,
                "pin-map",
                "queue",
                folder / "queue",
                "wait",
            ]
            agent = bpf.start([binary, *words], netns=network, ready="waiting")
            assert agent.links == [(LONG, interface)]
            assert list(agent.pins) == [str(folder / "queue")]
            assert bpf.attach_to(agent.pid).links == agent.links
            with pytest.raises(LoaderError, match="still runs"):
                agent.wait(0.1)
            agent.terminate()
            assert agent.wait() == 0
        finally:
            subprocess.run(["umount", folder], check=True)

    def test_they_are_readable_after_the_end(self, start):
        agent = start()
        agent.maps.counts_of_each_interface[1] = {"packets": 5}
        program = agent.programs.let_out
        agent.terminate()
        assert agent.wait() == 0
        assert agent.maps.counts_of_each_interface[1].packets == 5
        assert len(agent.programs) == 0
        with pytest.raises(ClosedError, match=r"run count of program 'let_out' .*: it is no longer loaded"):
            _ = program.run_count
        told = (
            r"of process .*: it ended with exit status 0, at most [\d.]+ s after its start, and {}s .*look at"
        )
        for what, found in (("map", agent.maps), ("program", agent.programs)):
            for name in ("absent", 0):
                with pytest.raises(NameLookupError, match="(?s)" + told.format(what)) as caught:
                    _ = found[name]
                assert "there are none" not in str(caught.value)

    def test_another_process(self, bpf, agent_binary, network_object):
        with subprocess.Popen(
            [agent_binary, "load", network_object, "wait"], stdout=subprocess.PIPE
        ) as other:
            other.stdout.readline()
            agent = bpf.attach_to(other.pid)
            assert {m.name for m in agent.maps} >= {"counts_of_each_interface", "events", "queue", "samples"}
            assert len(agent.programs) == 3
            agent.kill()

    def test_foreign_maps_by_name(self, bpf, start):
        agent = start()
        found = [m for m in bpf.maps_by_name("events") if m.id == agent.maps.events.id]
        counts = agent.maps.counts_of_each_interface
        assert counts in bpf.maps_by_name("counts_of_each_interface")
        assert counts in bpf.maps_by_name("counts_of_each_")
        assert bpf.maps_by_name("counts_of_each_other") == []
        with found[0].capture("event") as events:  # the types are those of the programs
            assert len(events) == 0

    def test_a_thousand_foreign_maps(self, bpf, start):
        agent = start()
        for number in range(1000):
            bpf.create_map("array", key="u32", value="u32", max_entries=1, name=f"foreign{number}")
        assert len(agent.maps) == 5

    def test_one_that_closed_everything(self, bpf, start, bpf_netns):
        left = bpf_netns().veth_to(bpf_netns())[0]
        agent = start(
            "xdp", LONG, left.name, "tc", "send_event", left.name, "egress", "close", netns=left.netns
        )
        assert {p.name for p in agent.programs} == {LONG, "send_event"}
        assert "counts_of_each_interface" in agent.maps


class TestLinks:
    def test_the_network(self, start, bpf_netns):
        left = bpf_netns().veth_to(bpf_netns())[0]
        agent = start("xdp", LONG, left.name, "tc", "send_event", left.name, "ingress", netns=left.netns)
        assert agent.links == [("send_event", f"{left.name} ingress"), (LONG, "xdp", left.name)]
        assert agent.links == ((LONG, left.name), ("send_event", "tc", f"{left.name} ingress"))
        assert agent.links != [(LONG, left.name)]
        assert agent.links != [*agent.links, (LONG, left.name)]
        assert agent.links != [(LONG, left.name), ("send_event", f"{left.name} egress")]

    def test_links_of_the_network(self, start, bpf_netns):
        left = bpf_netns().veth_to(bpf_netns())[0]
        agent = start("xdp-link", LONG, left.name, netns=left.netns)
        assert agent.links == [(LONG, "xdp", left.name)]
        theirs = {each["id"]: each for each in bpftool("link", "list")}
        assert [theirs[each.id]["prog_id"] for each in agent.links] == [agent.programs[LONG].id]

    def test_cgroups(self, start, bpf_cgroup):
        agent = start("cgroup", "let_out", bpf_cgroup.path)
        assert agent.links == [("let_out", "cgroup", str(bpf_cgroup.path))]
        assert agent.links[0].attach_type == "cgroup_inet_egress"
        other = start("cgroup-link", "let_out", bpf_cgroup.path)
        assert other.links == [("let_out", "cgroup", str(bpf_cgroup.path))]
        assert other.links[0].id is not None
        assert agent.links[0].id is None

    def test_wait_until_attached(self, start, bpf_netns):
        left = bpf_netns().veth_to(bpf_netns())[0]
        agent = start("xdp", LONG, left.name, ready=None, netns=left.netns)
        assert agent.wait_until_attached(LONG).target == left.name
        assert agent.wait_until_attached(LONG[:15]).program == LONG
        assert agent.wait_until_attached(left.name).program == LONG
        with pytest.raises(CaptureTimeoutError) as failed:
            agent.wait_until_attached("send_evnt", timeout=0.1)
        assert f"  attached: {LONG} at {left.name} (xdp)" in str(failed.value)
        assert "no program 'send_evnt' is loaded; did you mean 'send_event'?" in str(failed.value)
        with pytest.raises(CaptureTimeoutError) as failed:
            agent.wait_until_attached(f"{left.name} ingress", timeout=0.1)
        assert f"waited until a program is attached at '{left.name} ingress'" in str(failed.value)
        assert f"  attached: {LONG} at {left.name} (xdp)" in str(failed.value)
        assert "no program" not in str(failed.value)

    def test_an_agent_that_loads_nothing(self, bpf):
        agent = bpf.start(["sleep", "60"])
        with pytest.raises(CaptureTimeoutError, match="\n  it has loaded no program; some agents leave out"):
            agent.wait_until_attached("kprobe/vfs_read", timeout=0.1)

    def test_it_ends_before_it_attaches(self, bpf, agent_binary, network_object):
        agent = bpf.start([agent_binary, "load", network_object, "exit", "4"])
        with pytest.raises(
            LoaderError, match=r"waited until 'let_out' is attached of process .* exit status 4"
        ):
            agent.wait_until_attached("let_out")

    def test_run_counts(self, start, bpf_cgroup, bpf_process):
        agent = start("cgroup", "let_out", bpf_cgroup.path)
        assert agent.programs.let_out.run_count == 0
        made = "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
        child = bpf_process(["python3", "-c", f"import socket; {made}; s.sendto(b'x', ('127.0.0.1', 9))"])
        bpf_cgroup.add(child.pid)
        child.run(60)
        assert agent.programs.let_out.run_count == 1


@pytest.mark.bpf_requires("fentry/do_unlinkat", "kprobe/do_unlinkat", "tracepoint/sched/sched_process_exec")
def test_links_that_trace(bpf, agent_binary):
    names = ["tracepoint", "raw_tracepoint", "kprobe", "kretprobe", "fentry", "tp_btf"]
    words = [word for name in names for word in ("attach", f"at_{name}")]
    made = bpf.compile(AGENTS / "tracing.bpf.c")
    agent = bpf.start([agent_binary, "load", made, *words, "wait"], ready="waiting", timeout=30)
    links = {each.program: each.target for each in agent.links}
    assert links.keys() == {f"at_{name}" for name in names}
    assert links["at_tracepoint"] == "tracepoint/sched/sched_process_exec"
    assert links["at_raw_tracepoint"] == "raw_tracepoint/sched_switch"
    assert links["at_kprobe"] == "kprobe/do_unlinkat"
    assert links["at_kretprobe"] == "kretprobe/do_unlinkat"
    untold = "/ (the kernel does not tell which function)"  # before Linux 5.13
    assert links["at_fentry"] in ("fentry/do_unlinkat", f"fentry{untold}")
    assert links["at_tp_btf"] == "tp_btf/sched_switch"
    program = agent.programs.at_raw_tracepoint
    bpf.wait_until(lambda: program.run_count > 0, timeout=10)
    agent.kill()
    bpf.nothing_left(agent, timeout=5)


class TestPins:
    def test_maps_and_links(self, start, bpffs, bpf_cgroup):
        agent = start(
            *("cgroup-link", "let_out", bpf_cgroup.path, "pin-link", bpffs / "link"),
            *("pin-map", "events", bpffs / "events", "close"),
        )
        assert agent.pins.keys() == {f"{bpffs}/link", f"{bpffs}/events"}
        assert agent.pins[f"{bpffs}/link"].startswith("link id ")
        assert [each.pins for each in agent.links] == [(f"{bpffs}/link",)]
        assert agent.links == [("let_out", str(bpf_cgroup.path))]
        assert [p.name for p in agent.programs] == ["let_out"]
        assert [m.name for m in agent.maps] == ["events"]
        for name in ("link", "events"):
            (bpffs / name).unlink()

    def test_a_pin_of_the_test_is_not_the_agents(self, bpf, start, bpffs):
        agent = start()
        with bpf.create_map("array", key="u32", value="u32", max_entries=1, name="mine") as mine:
            mine.pin(bpffs / "mine")
            assert agent.pins == {}


AT_EXEC = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("tracepoint/sched/sched_process_exec") int at_exec(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""
CLOSES = """
import os, signal, sys
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.harness import Bpf
with Bpf(LocalCompiler()) as bpf, bpf.load(sys.argv[1]).attach():
    for fd in os.listdir("/proc/self/fd"):
        if os.path.islink(f"/proc/self/fd/{fd}") and "perf_event" in os.readlink(f"/proc/self/fd/{fd}"):
            os.close(int(fd))
    print("waiting", flush=True)
    signal.pause()
"""


@pytest.mark.bpf_requires("tracepoint/sched/sched_process_exec")
def test_a_link_whose_perf_event_is_closed(bpf, bpf_kernel):
    """As aya does, which drops the perf event when it has the link."""
    exec_event = "tracepoint/sched/sched_process_exec"
    command = [sys.executable, "-c", CLOSES, bpf.compile(code=AT_EXEC)]
    agent = bpf.start(command, ready="waiting", timeout=60)
    if bpf_kernel.version >= (6, 6):
        assert agent.wait_until_attached(exec_event).program == "at_exec"
        return
    assert agent.wait_until_attached("at_exec").target == "the kernel does not tell"
    with pytest.raises(CaptureTimeoutError, match=r"no target is known .*: wait for the program's name"):
        agent.wait_until_attached(exec_event, timeout=0.1)
