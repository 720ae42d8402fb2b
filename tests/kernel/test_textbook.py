"""Tests programs of books and tutorials on maps. docs/maps says what is wrong with some lines."""

import os
import struct
import subprocess

import pytest

from pytest_bpfmaps import CompileError, LoadError

SHORT = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
"""
OPERATIONS = """
struct {
    __uint(type, BPF_MAP_TYPE_%s);
    __uint(max_entries, 256);
    __type(key, u32);
    __type(value, u64);
} numbers SEC(".maps");

long updated, deleted;
u64 found;

SEC("xdp")
int use(struct xdp_md *ctx)
{
    u32 key = 1;
    u64 value = 100;
    u64 *there;

    updated = bpf_map_update_elem(&numbers, &key, &value, BPF_ANY);
    there = bpf_map_lookup_elem(&numbers, &key);
    if (there)
        found = *there;
    deleted = bpf_map_delete_elem(&numbers, &key);
    return XDP_PASS;
}
"""
GONE = {"HASH", "PERCPU_HASH", "LRU_HASH"}  # arrays keep their elements


@pytest.mark.parametrize("type", ["HASH", "ARRAY", "PERCPU_HASH", "LRU_HASH"])
def test_insert_look_up_and_delete(bpf, type, capfd):
    obj = bpf.load(code=SHORT + OPERATIONS % type)
    assert obj.programs.use.run(bytes(64)).retval == 2
    assert obj.globals.updated == 0
    assert obj.globals.found == 100
    assert (obj.globals.deleted == 0) == (type in GONE)
    assert (1 in obj.maps.numbers) == (type not in GONE)
    assert "'u32' is the kernel's own short name" in capfd.readouterr().err


COUNTER = """
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 10240);
    __type(key, u32);
    __type(value, u64);
} per_process SEC(".maps");

SEC("tracepoint/syscalls/sys_enter_openat")
int count(struct trace_event_raw_sys_enter *ctx)
{
    u32 pid = bpf_get_current_pid_tgid() >> 32;
    u64 *calls, zero = 0;

    calls = bpf_map_lookup_elem(&per_process, &pid);
    if (!calls) {
        bpf_map_update_elem(&per_process, &pid, &zero, BPF_NOEXIST);
        calls = bpf_map_lookup_elem(&per_process, &pid);
    }
    if (calls)
        __sync_fetch_and_add(calls, 1);
    return 0;
}
"""


@pytest.mark.bpf_requires("tracepoint/syscalls/sys_enter_openat")
def test_a_counter_of_openat(bpf):
    counter = bpf.load(code=SHORT + COUNTER)
    with counter.attach():
        for _ in range(4):
            os.close(os.open("/dev/null", os.O_RDONLY))
    assert counter.maps.per_process[os.getpid()] == 4


RING = """
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 256 * 1024);
} events SEC(".maps");

SEC("raw_tracepoint/sys_enter")
int report(void *ctx)
{
    struct event {
        u32 pid;
        u64 timestamp;
    } *e;

    e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
    if (e) {
        e->pid = bpf_get_current_pid_tgid() >> 32;
        e->timestamp = bpf_ktime_get_ns();
        bpf_ringbuf_submit(e, 0);
    }
    return 0;
}
"""


@pytest.mark.bpf_requires("ringbuf", "raw_tracepoint")
def test_events_through_a_ring_buffer(bpf):
    obj = bpf.load(code=SHORT + RING)
    with obj.maps.events.capture() as events:
        obj.programs.report.run()
        (event,) = events.wait()
    assert event.pid == os.getpid()
    assert event.timestamp > 0


PERF = """
struct {
    __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
    __uint(key_size, sizeof(u32));
    __uint(value_size, sizeof(u32));
} events SEC(".maps");

SEC("raw_tracepoint/sys_enter")
int report(void *ctx)
{
    struct {
        u32 pid;
        u64 timestamp;
    } event = {
        .pid = bpf_get_current_pid_tgid() >> 32,
        .timestamp = bpf_ktime_get_ns(),
    };

    bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &event, sizeof(event));
    return 0;
}
"""


@pytest.mark.bpf_requires("perf_event_array", "raw_tracepoint")
def test_events_through_a_perf_buffer(bpf):
    """The struct has no name, so its records are bytes."""
    obj = bpf.load(code=SHORT + PERF)
    with obj.maps.events.capture(bytes) as events:
        obj.programs.report.run()
        (event,) = events.wait()
    pid, timestamp = struct.unpack_from("I4xQ", event)
    assert pid == os.getpid()
    assert timestamp > 0


LEGACY = """
struct bpf_map_def SEC("maps") numbers = {
    .type = BPF_MAP_TYPE_HASH,
    .key_size = sizeof(u32),
    .value_size = sizeof(u64),
    .max_entries = 1024,
};

SEC("xdp")
int use(struct xdp_md *ctx)
{
    u32 key = 1;
    u64 value = 100;

    return bpf_map_update_elem(&numbers, &key, &value, BPF_ANY) ? XDP_DROP : XDP_PASS;
}
"""


def test_a_map_of_the_old_kind(bpf, capfd):
    """libbpf 1.0 removed the struct from its headers."""
    obj = bpf.load(code=SHORT + LEGACY)
    assert obj.programs.use.run(bytes(64)).retval == 2
    assert obj.maps.numbers == {1: 100}
    assert "'struct bpf_map_def' is declared here as libbpf declared it before 1.0" in capfd.readouterr().err


STACKS = """
struct {
    __uint(type, BPF_MAP_TYPE_STACK_TRACE);
    __uint(key_size, sizeof(u32));
    __uint(value_size, sizeof(u64) * 127);
    SIZE
} stacks SEC(".maps");

u32 last;

SEC("raw_tracepoint/sys_enter")
int note(void *ctx)
{
    last = bpf_get_stackid(ctx, &stacks, FLAGS);
    return 0;
}
"""


@pytest.mark.bpf_requires("stack_trace", "raw_tracepoint/sys_enter")
def test_stacks(bpf):
    """A map of stacks needs a size. A stack's number is an error when its highest bit is set."""
    # the program traces every process on the machine, so two stacks may have the same place in the map
    code = SHORT + STACKS.replace("FLAGS", "BPF_F_USER_STACK | BPF_F_REUSE_STACKID")
    with pytest.raises(LoadError, match="max_entries"):
        bpf.load(code=code.replace("SIZE", ""))
    obj = bpf.load(code=code.replace("SIZE", "__uint(max_entries, 64);"))
    with obj.programs.note.attach():
        os.getpgid(0)
    assert obj.globals.last < 1 << 31
    assert len(obj.maps.stacks[obj.globals.last]) > 0


def test_keys_are_listed_in_user_space_only(bpf):
    code = """
    struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, 8);
        __type(key, __u32);
        __type(value, __u64);
    } numbers SEC(".maps");
    SEC("xdp") int use(struct xdp_md *ctx)
    {
        __u32 key = 1, next_key;
        return bpf_map_get_next_key(&numbers, &key, &next_key);
    }
    """
    with pytest.raises((CompileError, LoadError), match="bpf_map_get_next_key"):
        bpf.load(code=SHORT + code)


USER_SPACE = r"""
#include <bpf/bpf.h>
#include <linux/types.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    int by_id = bpf_map_get_fd_by_id(atoi(argv[1])), fd = bpf_obj_get(argv[2]);
    __u32 key = 1, next_key = 0;
    __u64 value;

    if (by_id < 0 || fd < 0)
        return 1;
    if (bpf_map_lookup_elem(by_id, &key, &value))
        return 2;
    value = 200;
    if (bpf_map_update_elem(fd, &key, &value, BPF_ANY))
        return 3;
    while (bpf_map_get_next_key(fd, &next_key, &next_key) == 0) {
        bpf_map_lookup_elem(fd, &next_key, &value);
        printf("%u %llu\n", next_key, value);
    }
    return 0;
}
"""


@pytest.fixture
def listing(tmp_path):
    """Runs that program for a map, and returns the lines that it prints."""
    program, source = tmp_path / "user_space", tmp_path / "user_space.c"
    source.write_text(USER_SPACE)
    subprocess.run(["cc", "-o", program, source, "-lbpf"], check=True)

    def run(m):
        m.pin("numbers")
        command = [program, str(m.id), m.pins[0]]
        return sorted(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines())

    return run


@pytest.mark.bpf_kernels("host")  # it tests user space only, and gcc is slow under emulation
def test_a_c_program_and_a_test_share_a_map(bpf, listing):
    m = bpf.create_map("hash", key="u32", value="u64", max_entries=8)
    m.update_batch({1: 100, 2: 7})
    assert listing(m) == ["1 200", "2 7"]
    assert m == {1: 200, 2: 7}
    assert bpf.pinned("numbers") == {1: 200, 2: 7}


@pytest.mark.bpf_kernels("host")
def test_a_listing_that_starts_at_a_key_misses_some(bpf, listing):
    """When the map has key 0, the loop begins after it. Start with NULL, as `for key in m` does."""
    m = bpf.create_map("array", value="u64", max_entries=3)
    assert listing(m) == ["1 200", "2 0"]
    assert list(m.keys()) == [0, 1, 2]
