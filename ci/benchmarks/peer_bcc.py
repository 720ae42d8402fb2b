"""bcc's side: reads commands, and prints a figure for each. The system's Python runs it, which has bcc."""

import ctypes
import os
import struct
import sys
import time

from bcc import BPF

COUNT = 1_000_000
CODE = """
BPF_TABLE("hash", u32, u64, counts, 1000000);
struct event { u64 number; u32 pid; u32 kind; };
BPF_RINGBUF_OUTPUT(events, 8192);
int fill(struct xdp_md *ctx)
{
    for (int i = 0; i < 1000; i++) {
        struct event *event = events.ringbuf_reserve(sizeof(*event));
        if (!event)
            return 0;
        event->number = i;
        event->pid = 7;
        event->kind = 1;
        events.ringbuf_submit(event, BPF_RB_NO_WAKEUP);
    }
    return 2;
}
"""
now = time.perf_counter if "BENCH_WALL" in os.environ else time.process_time
SYS_BPF, BPF_PROG_TEST_RUN = 321, 10


def test_run(fd, repeat):
    data = ctypes.create_string_buffer(64)
    attr = struct.pack("=IIIIQQII", fd, 0, 64, 0, ctypes.addressof(data), 0, repeat, 0) + bytes(80)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(SYS_BPF, BPF_PROG_TEST_RUN, ctypes.c_char_p(attr), len(attr)) < 0:
        raise OSError(ctypes.get_errno(), "BPF_PROG_TEST_RUN")


b = BPF(text=CODE)
fill = b.load_func("fill", BPF.XDP)
pids = []


def on_event(_context, data, _size):
    pids.append(b["events"].event(data).pid)


def fill_map():
    keys = (ctypes.c_uint32 * COUNT)(*range(COUNT))
    values = (ctypes.c_uint64 * COUNT)(*range(COUNT))
    b["counts"].items_update_batch(keys, values)
    return 0.0


def read_map():
    began = now()
    found = dict(b["counts"].items_lookup_batch())
    took = now() - began
    assert len(found) == COUNT
    return COUNT / took / 1e6


def read_ring():
    pids.clear()
    test_run(fill.fd, COUNT // 1000)
    began = now()
    b.ring_buffer_consume()
    took = now() - began
    assert sum(pids) == 7 * COUNT
    return COUNT / took / 1e6


b["events"].open_ring_buffer(on_event)
commands = {"fill_map": fill_map, "read_map": read_map, "read_ring": read_ring}
print("figure 0", flush=True)
for line in sys.stdin:
    print("figure", commands[line.strip()](), flush=True)
