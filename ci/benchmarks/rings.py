"""A ring buffer with records of 16, 512 or 2048 bytes: reads it into an array, and one by one."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import peers
from benchmark import Benchmark, Sides
from maps import COUNT, rate

from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.harness import Bpf

CODE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct event { __u64 number; __u32 pid, kind; char more[MORE]; };
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
SMALL = 16  # bytes of a record


def loaded(stack: contextlib.ExitStack, size: int = SMALL) -> Any:
    code = CODE.replace("MORE", str(size - SMALL))
    return stack.enter_context(Bpf(LocalCompiler())).load(code=code)


def fill(sender: Any, count: int = COUNT) -> None:
    sender.programs.fill.run(bytes(64), repeat=count // 1000)


def to_array(stack: contextlib.ExitStack, size: int = SMALL, count: int = COUNT) -> Sides:
    """Measures `count` records of `size` bytes. They fit into the ring.

    The C program only looks at small records. It copies large ones into an array, as we do: there the copy is
    most of the work.
    """
    sender = loaded(stack, size)
    ring = sender.maps.events

    def ours() -> float:
        with ring.capture("event") as events:
            fill(sender, count)
            figure, array = rate(events.to_numpy, count)
        assert len(array) == count
        assert array["pid"].sum() == 7 * count
        return figure

    def peer() -> float:
        fill(sender, count)
        return peers.c_figure("read_ring" if size == SMALL else "keep_ring", ring.id, count)

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
    Benchmark("ring-read-512", "M/s", "C, which copies", 1.0, partial(to_array, size=512, count=60_000)),
    Benchmark("ring-read-2048", "M/s", "C, which copies", 1.0, partial(to_array, size=2048, count=15_000)),
    Benchmark("ring-iterate", "M/s", "bcc callback", 3.0, one_by_one),
]
