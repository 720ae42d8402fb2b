"""Tests errors of maps, runs and targets: each test does what the message says, and it works."""

import contextlib
import socket

import pytest

from pytest_bpfmaps import BPF_EXIST, BPF_NOEXIST, BpfError, LoadError
from pytest_bpfmaps.kernel.attach_names import functions, traceable_functions

CODE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct cell { __u32 n; __u16 few[3]; char text[8]; __u8 raw[4]; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4);
         __type(key, __u32); __type(value, struct cell); } cells SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1);
         __type(key, __u32); __type(value, __u64); } hash SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 1); __type(value, __u64); } queue SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 1); __uint(map_flags, BPF_F_NO_PREALLOC);
         __uint(key_size, 8); __type(value, __u64); } trie SEC(".maps");
__s8 small;
SEC("xdp") int on_xdp(struct xdp_md *ctx) { return ctx->rx_queue_index + 2; }
SEC("tc") int on_tc(struct __sk_buff *skb) { return 0; }
SEC("cgroup_skb/egress") int egress(struct __sk_buff *skb) { return 1; }
"""
FRAME = bytes(64)


@pytest.fixture
def obj(bpf):
    """Loads an object with filled maps of each kind, and with network programs."""
    made = bpf.load(code=CODE)
    made.maps.hash[1] = 1
    made.maps.queue.push(1)
    made.maps.trie[32, b"abcd"] = 1
    return made


def store(obj, **fields):
    obj.maps.cells[0] = fields


# the mistake, the advice in the message, and the corrected code
@pytest.mark.parametrize(
    ("wrong", "fix", "right"),
    [
        pytest.param(
            lambda o: o.maps.cells.update_elem(9, o.maps.cells[0]),
            "give an index in that range",
            lambda o: o.maps.cells.update_elem(3, o.maps.cells[0]),
            id="index",
        ),
        pytest.param(
            lambda o: o.maps.cells.update_elem(0, o.maps.cells[0], BPF_NOEXIST),
            "use BPF_ANY",
            lambda o: o.maps.cells.update_elem(0, o.maps.cells[0]),
            id="exists",
        ),
        pytest.param(
            lambda o: o.maps.cells.delete_elem(0),
            "only overwritten",
            store,
            id="element of an array",
        ),
        pytest.param(
            lambda o: store(o, n=-1), "from 0 to 4294967295", lambda o: store(o, n=4294967295), id="number"
        ),
        pytest.param(
            lambda o: store(o, few=[1]),
            "give a list of 3 values",
            lambda o: store(o, few=[1, 2, 3]),
            id="list",
        ),
        pytest.param(
            lambda o: store(o, text="123456789"),
            "give at most 8 bytes",
            lambda o: store(o, text="12345678"),
            id="text",
        ),
        pytest.param(
            lambda o: store(o, raw=b"12345"),
            "give at most 4 bytes",
            lambda o: store(o, raw=b"1234"),
            id="bytes",
        ),
        pytest.param(
            lambda o: setattr(o.globals, "small", 300),
            "give an int from -128 to 127",
            lambda o: setattr(o.globals, "small", -128),
            id="global",
        ),
        pytest.param(
            lambda o: o.maps.hash.update_elem(2, 2),
            "delete elements first",
            lambda o: (o.maps.hash.delete_elem(1), o.maps.hash.update_elem(2, 2)),
            id="full hash",
        ),
        pytest.param(
            lambda o: o.maps.trie.update_elem((32, b"abce"), 2),
            "delete elements first",
            lambda o: (
                o.maps.trie.delete_elem((32, b"abcd")),
                o.maps.trie.update_elem((32, b"abce"), 2),
            ),
            id="full trie",
        ),
        pytest.param(
            lambda o: o.maps.queue.push(2),
            "pop first",
            lambda o: (o.maps.queue.pop(), o.maps.queue.push(2)),
            id="full queue",
        ),
        pytest.param(
            lambda o: o.maps.queue.push(2),
            r"push\(value, BPF_EXIST\)",
            lambda o: o.maps.queue.push(2, BPF_EXIST),
            id="full queue, the oldest goes",
        ),
        pytest.param(
            lambda o: o.programs.on_xdp.run(data=FRAME, repeat=-1),
            "give a number from 1",
            lambda o: o.programs.on_xdp.run(data=FRAME, repeat=1),
            id="repeat",
        ),
        pytest.param(
            lambda o: o.programs.on_tc.run(),
            "at least an Ethernet header: 14 bytes",
            lambda o: o.programs.on_tc.run(data=bytes(14)),
            id="no packet",
        ),
        pytest.param(
            lambda o: o.programs.on_tc.run(data=FRAME, live=True),
            "leave out live",
            lambda o: o.programs.on_tc.run(data=FRAME),
            id="live",
        ),
        pytest.param(
            lambda o: o.programs.on_tc.run(data=FRAME, cpu=4000),
            r"CPUs: 0\b",
            lambda o: o.programs.on_tc.run(data=FRAME, cpu=0),
            id="CPU",
        ),
        pytest.param(
            lambda o: o.programs.on_tc.run(data=FRAME, ctx=object()),
            r"its fields: ctx=\{'len': …\}",
            lambda o: o.programs.on_tc.run(data=FRAME, ctx={"mark": 3}),
            id="context",
        ),
        pytest.param(
            lambda o: o.programs.on_xdp.attach(interfce="lo"),
            "did you mean 'interface'",
            lambda o: o.programs.on_xdp.attach(interface="lo").close(),
            id="misspelt target",
        ),
        pytest.param(
            lambda o: o.programs.on_xdp.attach(interface="lo", cgroup="/sys/fs/cgroup"),
            "leave out cgroup",
            lambda o: o.programs.on_xdp.attach(interface="lo").close(),
            id="two targets",
        ),
        pytest.param(
            lambda o: o.programs.on_tc.attach(interface="lo", direction="ingres"),
            "did you mean 'ingress'",
            lambda o: o.programs.on_tc.attach(interface="lo", direction="ingress").close(),
            id="direction",
        ),
        pytest.param(
            lambda o: o.programs.egress.attach(interface="lo"),
            r"a cgroup: attach\(cgroup=bpf_cgroup\)",
            lambda o: None,  # test_triggers_cgroup.py attaches to such a group
            id="another program's target",
        ),
    ],
)
def test_what_is_said_helps(obj, bpf_netns, wrong, fix, right):
    with bpf_netns("alone").enter():
        with pytest.raises(BpfError) as error:
            wrong(obj)
        assert error.match(f"(?s)-> .*{fix}")
        right(obj)


@pytest.mark.parametrize(
    ("wrong", "fix", "right"),
    [
        ({"name": "a-b c"}, "name='a_b_c'", {"name": "a_b_c"}),
        ({"max_entries": None}, "give max_entries=", {"max_entries": 1}),
        ({"type": "hsh"}, "did you mean 'hash'", {"type": "hash"}),
        ({"value": None}, "give value='u32'", {"value": "u32"}),
        ({"type": "queue"}, "leave key='u32' out", {"type": "queue", "key": None}),
        ({"max_entries": 1 << 31, "value": 1 << 20}, "fewer or smaller", {"max_entries": 1, "value": 1024}),
    ],
)
def test_maps_that_are_created(bpf, wrong, fix, right):
    usual = {"type": "hash", "key": "u32", "value": "u64", "max_entries": 1}
    with pytest.raises(BpfError) as error:
        bpf.create_map(**usual | wrong)
    assert error.match(f"(?s)-> .*{fix}")
    bpf.create_map(**usual | right)


def test_a_map_that_is_full_can_be_made_larger(bpf):
    """The remedies differ for a map of an object and one that was created. The message has both."""
    created = bpf.create_map("hash", key="u32", value="u64", max_entries=1)
    loaded = bpf.load(code=CODE).maps.hash
    for each in (created, loaded):
        each[1] = 1
        with pytest.raises(
            BpfError, match=r"bpf\.load\(…, max_entries=.*bpf\.create_map\(…, max_entries=…\)"
        ):
            each[2] = 2
    larger = bpf.load(code=CODE, max_entries={"hash": 2}).maps.hash
    for each in (larger, bpf.create_map("hash", key="u32", value="u64", max_entries=2)):
        each.update({1: 1, 2: 2})


@pytest.mark.bpf_requires("sockmap")
def test_sockets_for_a_map_of_sockets(bpf):
    sockets = bpf.create_map("sockmap", max_entries=2)
    with contextlib.ExitStack() as stack:
        new = stack.enter_context(socket.socket())
        with pytest.raises(
            BpfError, match="TCP socket that is connected or listens, or a UDP socket that is bound"
        ):
            sockets[0] = new
        new.listen()
        sockets[0] = new
        datagrams = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        datagrams.bind(("127.0.0.1", 0))
        sockets[1] = datagrams


WATCHING = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("SECTION") int prog(void *ctx) { return 0; }
"""


@pytest.mark.bpf_requires("kprobe")
@pytest.mark.parametrize(
    ("section", "wrong", "fix", "right"),
    [
        ("kprobe", {"category": "syscalls", "event": "sys_enter_openat"}, r'attach\(function="vfs_read"\)',
         {"function": "vfs_read"}),
        ("kprobe", {"interface": "lo"}, r'attach\(function="vfs_read"\)', {"function": "vfs_read"}),
        ("tp", {"function": "vfs_read"}, r'category="syscalls", event="sys_enter_openat"',
         {"category": "syscalls", "event": "sys_enter_openat"}),
        ("raw_tp", {"event": "sched_switch", "category": "sched"}, r'attach\(tracepoint="sched_switch"\)',
         {"tracepoint": "sched_switch"}),
        ("uprobe", {"perf_event": "cpu_clock", "frequency": 9},
         r'attach\(binary="/bin/bash", function="readline"\)',
         {"binary": "/bin/bash", "function": "readline"}),
        ("uprobe", {"binary": "/bin/bash", "function": "readlin"}, "'readline'",
         {"binary": "/bin/bash", "function": "readline"}),
        ("uprobe", {"binary": "/bin", "function": "x"}, "name the program itself",
         {"binary": "/bin/bash", "function": "readline"}),
        ("tp", {"event": "sys_enter_openat"}, "give category",
         {"category": "syscalls", "event": "sys_enter_openat"}),
        ("raw_tp", {"tracepoint": "sched_switch", "function": "x"}, "leave out (function|tracepoint)",
         {"tracepoint": "sched_switch"}),
        ("perf_event", {"perf_event": "cpu_clock", "frequency": 9, "period": 9}, "give one of them",
         {"perf_event": "cpu_clock", "frequency": 9}),
        ("perf_event", {"perf_event": "cpu_clock", "frequency": 9, "cpu": 4000}, "CPUs: 0",
         {"perf_event": "cpu_clock", "frequency": 9, "cpu": 0}),
        ("perf_event", {"perf_event": "cycles", "frequency": 9}, "'cpu_cycles'",
         None),
        ("perf_event", {"perf_event": "cpu_clock", "frequency": 10**9}, "max_sample_rate",
         {"perf_event": "cpu_clock", "frequency": 100}),
        ("kprobe", {"function": "vfs_read", "offset": 1}, "objdump -d", {"function": "vfs_read"}),
        ("kprobe", {"functions": ["vfs_read", "vfs_write"]}, "kprobe.multi.*give function=",
         {"function": "vfs_read"}),
        pytest.param("fentry/vfs_read", {"function": "vfs_read"}, r"leave it out of attach\(\)", {},
                     marks=pytest.mark.bpf_requires("fentry/vfs_read")),
    ],
)  # fmt: skip
def test_targets_of_programs_that_watch(bpf, section, wrong, fix, right):
    program = bpf.load(code=WATCHING.replace("SECTION", section)).programs.prog
    with pytest.raises(BpfError) as error:
        program.attach(**wrong)
    assert error.match(f"(?s)-> .*{fix}")
    if right is not None:
        program.attach(**right).close()


@pytest.mark.bpf_requires("kprobe.multi")
def test_one_function_and_many(bpf):
    program = bpf.load(code=WATCHING.replace("SECTION", "kprobe.multi")).programs.prog
    with pytest.raises(BpfError, match="give functions=, a pattern or a list"):
        program.attach(function="vfs_read")
    program.attach(functions=["vfs_read"])


@pytest.mark.bpf_requires("kprobe")
def test_a_function_that_the_compiler_changed(bpf):
    """The name in the message can be probed, and is the function's entry."""
    program = bpf.load(code=WATCHING.replace("SECTION", "kprobe")).programs.prog
    names = [n for n in traceable_functions().having(".isra.") if n.count(".") == 2]
    alone = [n for n in names if n.partition(".")[0] not in functions()]
    for name in alone[:3]:
        base = name.partition(".")[0]
        with pytest.raises(BpfError, match=rf"the compiler made '{base}\.") as error:
            program.attach(function=base)
        assert ".cold" not in str(error.value)
        program.attach(function=name).close()
    assert alone


def test_an_object_that_is_no_object(bpf, tmp_path):
    broken = tmp_path / "a.bpf.o"
    broken.write_bytes(b"\x7fELF" + bytes(60))
    with pytest.raises(LoadError, match="-> "):
        bpf.load(broken)
