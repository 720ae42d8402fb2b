"""A ring buffer with a million records of 16 bytes: reads it into an array, and one by one."""

from __future__ import annotations

import contextlib
from typing import Any

import peers
from benchmark import Benchmark, Sides
from maps import COUNT, rate

from pytest_bpfmaps.compiler import LocalCompiler
from pytest_bpfmaps.harness import Bpf

CODE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct event { __u64 number; __u32 pid, kind; };
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 25);
} events SEC(".maps");

SEC("xdp") int fill(struct xdp_md *ctx)
{
    for (int i = 0; i < 1000; i++) {
        struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
        if (!event)
            return XDP_ABORTED;
        event->number = i;
        event->pid = 7;
        event->kind = 1;
        bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
    }
    return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""


def loaded(stack: contextlib.ExitStack) -> Any:
    return stack.enter_context(Bpf(LocalCompiler())).load(code=CODE)


def fill(sender: Any) -> None:
    sender.programs.fill.run(bytes(64), repeat=COUNT // 1000)


def to_array(stack: contextlib.ExitStack) -> Sides:
    sender = loaded(stack)
    ring = sender.maps.events

    def ours() -> float:
        with ring.capture("event") as events:
            fill(sender)
            figure, array = rate(events.to_numpy)
        assert len(array) == COUNT
        assert array["pid"].sum() == 7 * COUNT
        return figure

    def peer() -> float:
        fill(sender)
        return peers.c_figure("read_ring", ring.id, COUNT)

    return ours, peer


def one_by_one(stack: contextlib.ExitStack) -> Sides:
    sender, bcc = loaded(stack), peers.bcc(stack)

    def ours() -> float:
        with sender.maps.events.capture() as events:
            fill(sender)
            figure, total = rate(lambda: sum(event.pid for event in events))
        assert total == 7 * COUNT
        return figure

    return ours, lambda: bcc.ask("read_ring")


BENCHMARKS = [
    # 30 million a second or 0.15 of C's figure, whichever is lower.
    Benchmark("ring-read-numpy", "M/s", "C callback", lambda peer: min(0.15, 30 / peer), to_array),
    Benchmark("ring-iterate", "M/s", "bcc callback", 3.0, one_by_one),
]
