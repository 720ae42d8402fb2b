"""Tests what follows from names: of sections, of binaries, of misspelt functions."""

import sys
from pathlib import Path

import pytest

from pytest_bpfmaps.attach.section_targets import default_target, is_return
from pytest_bpfmaps.elf.binaries import find_binary, mapped_files


@pytest.mark.parametrize(
    ("section", "target"),
    [
        ("tracepoint/syscalls/sys_enter_openat", {"category": "syscalls", "event": "sys_enter_openat"}),
        ("?tp/sched/sched_switch", {"category": "sched", "event": "sched_switch"}),
        ("raw_tp.w/x", {"tracepoint": "x"}),
        ("kprobe/do_unlinkat", {"function": "do_unlinkat"}),
        ("kprobe/do_unlinkat+0x10", {"function": "do_unlinkat", "offset": 16}),
        ("kretprobe/vfs_read.isra.0+4", {"function": "vfs_read.isra.0", "offset": 4}),
        ("kprobe/do_unlinkat+010", {"function": "do_unlinkat", "offset": 8}),
        ("kprobe/do_unlinkat+0X1f", {"function": "do_unlinkat", "offset": 31}),
        ("kprobe/do_unlinkat+0", {"function": "do_unlinkat", "offset": 0}),
        ("kprobe/do_unlinkat+09", {"function": "do_unlinkat+09"}),
        ("uprobe//bin/x:f+010", {"binary": "/bin/x", "function": "f", "offset": 8}),
        ("ksyscall/openat", {"syscall": "openat"}),
        ("kprobe.multi/tcp_*", {"functions": "tcp_*"}),
        ("uprobe.s//lib/libc.so.6:getpid", {"binary": "/lib/libc.so.6", "function": "getpid"}),
        ("uprobe.multi//bin/x:f*", {"binary": "/bin/x", "functions": "f*"}),
        ("usdt//bin/x:provider:name", {"binary": "/bin/x", "usdt": "provider:name"}),
        ("kprobe", {}),
        ("uprobe/no_function", {}),
        ("tp/no_event", {}),
        ("fentry/do_unlinkat", {}),
        ("xdp", {}),
    ],
)
def test_what_a_section_says_of_its_target(section, target):
    assert default_target(section) == target


def test_sections_of_programs_that_run_on_return():
    assert all(is_return(s) for s in ("kretprobe/x", "uretprobe.s", "kretprobe.multi/x", "kretsyscall/x"))
    assert not any(is_return(s) for s in ("kprobe/x", "uprobe", "kprobe.session/x", "fexit/x"))


def test_libraries_are_found_by_name_and_path():
    libc = find_binary("libc")
    assert libc is not None
    assert libc.name.startswith("libc.so")
    assert find_binary(libc.name) == find_binary(libc) == libc
    assert find_binary("libpython") in {*mapped_files(), Path(sys.executable).resolve()}
    assert find_binary("sh") == Path("/bin/sh").resolve()
    assert find_binary("no-such-program") is None
    assert find_binary("/no/such/file") is None
