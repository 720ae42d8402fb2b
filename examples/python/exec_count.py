#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The exec counter in Python, with bcc. It needs the headers of the running kernel."""

import signal
import sys

from bcc import BPF

CODE = """
struct name { char comm[16]; };
struct event { u32 pid; char comm[16]; };
BPF_HASH(exec_count, struct name, u64);
BPF_RINGBUF_OUTPUT(events, 16);

TRACEPOINT_PROBE(sched, sched_process_exec)
{
    struct name name = {};
    struct event event = {.pid = bpf_get_current_pid_tgid() >> 32};

    bpf_get_current_comm(name.comm, sizeof(name.comm));
    bpf_get_current_comm(event.comm, sizeof(event.comm));
    exec_count.increment(name);
    events.ringbuf_output(&event, sizeof(event), 0);
    return 0;
}
"""

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
counter = BPF(text=CODE)


def show(_context, data, _size):
    event = counter["events"].event(data)
    print(event.pid, event.comm.decode(), flush=True)


counter["events"].open_ring_buffer(show)
while True:
    counter.ring_buffer_poll()
