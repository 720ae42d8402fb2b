"""Tests complaints in kernel logs: where each begins and ends, and its line in a summary."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_bpfmaps.kernel.splats import (
    LONGEST,
    complaint_start,
    headlines,
    panic_start,
    readable,
    reason,
    splats,
)

WARNING_5_10 = """
------------[ cut here ]------------
WARNING: CPU: 0 PID: 94 at fs/inode.c:304 drop_nlink+0x27/0x40
Modules linked in: minix loop overlay 9p fscache 9pnet_virtio 9pnet virtio_console
CPU: 0 PID: 94 Comm: python Not tainted 5.10.0-46-amd64 #1 Debian 5.10.262-1
Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.2-debian-1.16.2-1 04/01/2014
RIP: 0010:drop_nlink+0x27/0x40
Code: ff ff 90 66 66 66 66 90 8b 47 48 8d 50 ff 85 c0 74 18 89 57 48 85 d2 75 0c 48 8b 47 28 f0 48 ff 80 68 04
RSP: 0018:ffffc9000017be58 EFLAGS: 00000246
RAX: 0000000000000000 RBX: ffff888004fa4ac0 RCX: 0000000000000000
FS:  00007effff898b80(0000) GS:ffff88803ea00000(0000) knlGS:0000000000000000
Call Trace:
 minix_unlink+0x6c/0xb0 [minix]
 ? update_load_avg+0x7e/0x780
 vfs_unlink+0x114/0x290
RIP: 0033:0x7effffa73b17
---[ end trace 79c2397c73d4424d ]---
"""
WARNING_7_2 = """
------------[ cut here ]------------
WARNING: fs/buffer.c:1093 at mark_buffer_dirty+0xcc/0xe0, CPU#1: python/121
CPU: 1 UID: 0 PID: 121 Comm: python Not tainted 7.2.13+deb14-amd64 #1 PREEMPT(lazy)  Debian 7.2.13-1
RIP: 0010:mark_buffer_dirty+0xcc/0xe0
Call Trace:
 <TASK>
 minix_new_inode+0xe5/0x220 [minix]
 </TASK>
---[ end trace 0000000000000000 ]---
"""
HUNG = """
INFO: task python:107 blocked for more than 30 seconds.
      Not tainted 6.1.0-56-amd64 #1 Debian 6.1.192-2
"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.
task:python          state:D stack:0     pid:107   ppid:1      flags:0x00000002
Call Trace:
 <TASK>
 percpu_rwsem_wait+0x116/0x140
 </TASK>
"""
STALL = """
rcu: INFO: rcu_preempt self-detected stall on CPU
rcu: \t1-....: (2651 ticks this GP) idle=30a4/1/0x4000000000000000 softirq=335/335 fqs=1591
\t(t=6250 jiffies g=10197 q=1 ncpus=2)
CPU: 1 PID: 107 Comm: python Not tainted 6.1.0-56-amd64 #1  Debian 6.1.192-2
RIP: 0010:bpf_prog_a04f5eef06a7f555_inner+0x0/0x10
Call Trace:
 <IRQ>
 bpf_test_run+0x188/0x310
"""
OOPS = """
BUG: kernel NULL pointer dereference, address: 0000000000000008
#PF: supervisor read access in kernel mode
Oops: 0000 [#1] PREEMPT SMP NOPTI
RIP: 0010:use_it+0x5/0x20 [mod]
Call Trace:
 do_syscall_64+0x5d/0xb0
---[ end trace 0000000000000000 ]---
"""
LEAK = "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)"


def lines(text: str) -> list[str]:
    return text.strip("\n").split("\n")


EACH = [
    (WARNING_5_10, "WARNING at fs/inode.c:304 in drop_nlink()", True),
    (WARNING_7_2, "WARNING at fs/buffer.c:1093 in mark_buffer_dirty()", True),
    (HUNG, "INFO: task python:107 blocked for more than 30 seconds.", False),
    (STALL, "rcu: INFO: rcu_preempt self-detected stall on CPU at bpf_prog_a04f5eef06a7f555_inner()", False),
    (OOPS, "BUG: kernel NULL pointer dereference, address: 0000000000000008 at use_it()", True),
    (LEAK, LEAK, False),
    ("BUG: sleeping function called from invalid context at mm/slab.h:1", None, False),
    ("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [python:107]", None, False),
    ("UBSAN: shift-out-of-bounds in net/x.c:3:1", None, False),
    ("BUG: KFENCE: memory corruption in f+0x1/0x2", None, False),
    ("WARNING: suspicious RCU usage", None, False),
]


@pytest.mark.parametrize(("text", "headline", "is_whole"), EACH)
def test_a_complaint_by_itself(text: str, headline: str | None, is_whole: bool) -> None:
    (found,) = splats(["loop: module loaded", *lines(text)])
    assert list(found.lines) == lines(text)
    assert found.headline == (headline or text)
    assert found.is_whole == is_whole


def test_complaints_in_a_row_are_told_apart_and_what_is_between_belongs_to_none() -> None:
    texts = [text for text, *_ in EACH]
    everything = [
        line for text in texts for line in [*lines(text), *(["", "eth0: up"] if " </TASK>" in text else [])]
    ]
    found = splats(everything)
    assert [splat.lines[0] for splat in found] == [lines(text)[0] for text in texts]
    assert not any("eth0: up" in splat.lines for splat in found)


# A kernel with LKDTM and sanitizers printed this when a test caused it (fixtures/record_splats.py).
PROVOKED = {
    "WARNING": ["WARNING at drivers/misc/lkdtm/bugs.c:112 in lkdtm_WARNING()"],
    "WARNING_MESSAGE": [
        "WARNING at drivers/misc/lkdtm/bugs.c:117 in lkdtm_WARNING_MESSAGE(): Warning message trigger"
    ],
    "CORRUPT_LIST_ADD": [
        "WARNING at lib/list_debug.c:29 in __list_add_valid_or_report(): list_add corruption. next->prev"
    ],
    "REFCOUNT_INC_ZERO": [
        "WARNING at lib/refcount.c:25 in refcount_warn_saturate(): refcount_t: addition on 0; use-after-free."
    ],
    "ARRAY_BOUNDS": ["UBSAN: array-index-out-of-bounds in drivers/misc/lkdtm/bugs.c:406:16"],
    "READ_AFTER_FREE": ["BUG: KASAN: slab-use-after-free in lkdtm_READ_AFTER_FREE+"],
    "SLAB_LINEAR_OVERFLOW": ["BUG: KASAN: slab-out-of-bounds in lkdtm_SLAB_LINEAR_OVERFLOW+"],
    "SPINLOCKUP": ["BUG: scheduling while atomic: python/", "[ BUG: Invalid wait context ]"],  # lockdep
}
LOGS = Path(__file__).parents[2] / "fixtures" / "splats"


def test_each_provocation_is_recorded() -> None:
    assert {log.stem for log in LOGS.iterdir()} == {*PROVOKED}


@pytest.mark.parametrize("name", PROVOKED)
def test_what_a_provoked_kernel_says(name: str) -> None:
    logged = (LOGS / f"{name}.log").read_text().splitlines()
    found = splats(logged)
    assert len(found) == len(PROVOKED[name])
    for splat, headline in zip(found, PROVOKED[name], strict=True):
        assert splat.headline.startswith(headline)
        assert f" lkdtm_{name}+0x" in splat.text or "BUG: " in splat.headline
        assert "RAX: " not in splat.text
    told = {line for splat in found for line in splat.lines}
    others = [line for line in logged if line not in told]
    assert all(line.startswith(("lkdtm: ", "Disabling lock debugging")) for line in others)


def test_provocations_in_a_row_are_told_apart() -> None:
    logs = [line for name in PROVOKED for line in (LOGS / f"{name}.log").read_text().splitlines()]
    expected = [headline for headlines in PROVOKED.values() for headline in headlines]
    for splat, headline in zip(splats(logs), expected, strict=True):
        assert splat.headline.startswith(headline)


@pytest.mark.parametrize(
    "line",
    [
        "loop0: detected capacity change from 0 to 128",
        "Buffer I/O error on dev loop0, logical block 4, lost async page write",
        "------------[ cut here ]------------",
        "sysrq: Show Blocked State",
        "ACPI BIOS Warning (bug): no such",
        "Call Trace:",
    ],
)
def test_what_is_no_complaint(line: str) -> None:
    assert splats([line, "another"]) == []


def test_what_one_reads_has_no_registers() -> None:
    (found,) = splats(lines(WARNING_5_10))
    assert found.text.splitlines() == [
        "------------[ cut here ]------------",
        "WARNING: CPU: 0 PID: 94 at fs/inode.c:304 drop_nlink+0x27/0x40",
        "CPU: 0 PID: 94 Comm: python Not tainted 5.10.0-46-amd64 #1 Debian 5.10.262-1",
        "RIP: 0010:drop_nlink+0x27/0x40",
        "Call Trace:",
        " minix_unlink+0x6c/0xb0 [minix]",
        " vfs_unlink+0x114/0x290",
        "---[ end trace 79c2397c73d4424d ]---",
    ]


def test_of_many_lines_one_reads_the_first_and_the_last() -> None:
    found = readable([f"line {n}" for n in range(1000)])
    assert len(found) == LONGEST
    assert (found[0], found[-1]) == ("line 0", "line 999")
    assert "[... 941 lines ...]" in found


CONSOLE = [
    "[    0.100000] Linux version 6.1",
    *(f"[    1.{n:06}] line" for n in range(200)),
    "[    9.000000][  T107] ------------[ cut here ]------------",
    "[    9.000001][  T107] kernel BUG at fs/inode.c:1!",
    "[    9.000002][  T107] Kernel panic - not syncing: Fatal exception",
    "[    9.000003] NMI backtrace for cpu 1",
    "[    9.000003]  nmi_trigger_cpumask_backtrace+0xed/0x100",
    "[    9.000003] Sending NMI from CPU 1 to CPUs 0:",
    "[    9.000004] NMI backtrace for cpu 0",
    "[    9.000004] RIP: 0010:elsewhere+0x1/0x2",
]


def test_a_console_is_read_from_the_complaint_on() -> None:
    assert complaint_start(CONSOLE) == panic_start(CONSOLE) == 201
    assert reason(CONSOLE) == "Fatal exception"
    assert headlines(CONSOLE[:204]) == ["kernel BUG at fs/inode.c:1!"]
    assert readable(CONSOLE[201:]) == [*CONSOLE[201:204], *CONSOLE[-2:]]
    assert complaint_start(CONSOLE[:201]) is panic_start(CONSOLE[:201]) is reason(CONSOLE[:201]) is None
