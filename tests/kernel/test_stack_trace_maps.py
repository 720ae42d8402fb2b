"""Tests stack traces: exact names in the kernel, hidden addresses, the contents of the map."""

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stack_traces import KPROBE, assert_in_file, libc_path

from pytest_bpfmaps import MapKeyError, UnsupportedError
from pytest_bpfmaps.kernel.kallsyms import KernelSymbols, kernel_symbols

libc = ctypes.CDLL(None)
pytestmark = pytest.mark.bpf_requires("stack_trace", "raw_tracepoint", "raw_tracepoint/sys_enter")


# tests of the kernel's stacks


def test_the_exact_top_frame_in_the_kernel(trace):
    obj = trace(os.getpid())
    libc.getppid()
    stack = obj.maps.stacks[obj.globals.kernel_stack]
    top = stack[0]
    # a raw tracepoint's stack begins in the program itself; the symbol begins with the program's tag
    assert top.symbol.startswith("bpf_prog_")
    assert top.symbol.endswith("_trace")
    assert top.file == "bpf"
    assert top.in_kernel
    assert 0 < top.offset < 4096
    assert stack.symbols[1:3] in (BELOW, BELOW[:1] + stack.symbols[2:3])
    assert "do_syscall_64" in stack.symbols or os.uname().machine != "x86_64"


BELOW = ["bpf_trace_run2", "__bpf_trace_sys_enter"]


@pytest.mark.bpf_requires("kprobe/do_sys_openat2")
def test_the_exact_top_frame_of_a_kprobe(trace):
    obj = trace(os.getpid(), KPROBE)
    os.close(os.open("/dev/null", os.O_RDONLY))
    stack = obj.maps.stacks[obj.globals.kernel_stack]
    assert stack[0].symbol == "do_sys_openat2"
    assert stack[0].file == "vmlinux"
    assert stack[0].offset < 16
    assert str(stack).startswith("#0 do_sys_openat2+0x")
    assert_in_file(obj.maps.stacks[obj.globals.user_stack][0], libc_path())


def test_kallsyms_agrees_with_itself():
    symbols = kernel_symbols()
    lines = [line.split() for line in Path("/proc/kallsyms").read_text().splitlines()]
    wanted = {n: int(a, 16) for a, t, n, *module in lines if t in "tT" and not module}
    for name in ("do_sys_openat2", "vfs_read", "schedule", "bpf_map_update_value", "ksys_read"):
        if name in wanted:
            for distance in (0, 1, 5):
                (found,) = symbols.find([wanted[name] + distance])
                assert name in found.names
                assert (found.start, found.file) == (wanted[name], "vmlinux")
    assert symbols.find([0, 4096, 2**64 - 1]) == [None, None, None]


def test_the_kernels_own_symbols_are_in_the_order_of_their_addresses():
    """Searching the text is enough, because it is sorted. The test sorts all lines to check that."""
    lines = [line.split() for line in Path("/proc/kallsyms").read_text().splitlines()]
    own = [(int(a, 16), t, n) for a, t, n, *module in lines if not module]
    functions = {}
    for address, kind, name in own:
        if kind in "tTwW" and address:
            functions.setdefault(address, set()).add(name)
    asked = sorted(functions)[:: max(len(functions) // 500, 1)]
    for address, found in zip(asked, kernel_symbols().find(asked), strict=True):
        assert (found.start, found.file, set(found.names)) == (address, "vmlinux", functions[address])


def test_programs_that_come_and_go_are_told_apart(trace):
    seen = set()
    for _ in range(3):
        obj = trace(os.getpid())
        libc.getppid()
        stack = obj.maps.stacks[obj.globals.kernel_stack]
        seen.add(stack[0].symbol)
        assert stack[0].file == "bpf"
        obj.close()
    assert len(seen) == 1


HIDDEN = """
import os
from pytest_bpfmaps import UnsupportedError
from pytest_bpfmaps.elf.functions_by_address import elf_symbols
from pytest_bpfmaps.kernel.kallsyms import KernelSymbols
symbols = KernelSymbols()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    print(symbols.find([1 << 63]))
except UnsupportedError as e:
    print(e.errno, e)
"""


def test_hidden_addresses_are_said_to_be_hidden():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    # -S, and imports before the change of user: that user may not be able to read the packages
    done = subprocess.run([sys.executable, "-c", HIDDEN], env=env, capture_output=True, text=True, check=True)
    setting = Path("/proc/sys/kernel/kptr_restrict").read_text().strip()
    assert done.stdout.startswith(f"{errno.EPERM} cannot name kernel addresses from /proc/kallsyms")
    assert f"kernel.kptr_restrict is {setting}" in done.stdout
    assert "CAP_SYSLOG" in done.stdout


def test_frames_with_hidden_names_still_have_addresses(trace, monkeypatch, tmp_path):
    (tmp_path / "kallsyms").write_text("0000000000000000 T _stext\n0000000000000000 T _etext\n")
    hidden = KernelSymbols(str(tmp_path / "kallsyms"))
    monkeypatch.setattr("pytest_bpfmaps.maps.families.stack_trace.kernel_symbols", lambda: hidden)
    obj = trace(os.getpid())
    libc.getppid()
    top = obj.maps.stacks[obj.globals.kernel_stack][0]
    assert top.address > 1 << 63
    assert "hides them" in str(top)
    with pytest.raises(UnsupportedError, match="cannot name kernel addresses"):
        _ = top.symbol


# tests of the map


def test_the_dict_protocol(trace):
    obj = trace(os.getpid())
    libc.getppid()
    stacks, number = obj.maps.stacks, obj.globals.user_stack
    assert number in stacks
    assert set(stacks) == {obj.globals.kernel_stack, number}
    assert stacks.get(number) == stacks[number] == stacks.snapshot()[number]
    assert len(stacks) == 2
    trace_of_it = stacks[number]
    assert trace_of_it.addresses == [f.address for f in trace_of_it]
    assert len(trace_of_it[:2]) == min(2, len(trace_of_it))
    obj.close()
    assert trace_of_it[0].symbol == "getppid"  # it does not need the map any more
    stacks = trace(os.getpid()).maps.stacks
    libc.getppid()
    stacks.clear()
    assert len(stacks) == 0


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (-errno.EFAULT, r"(?s)no stack -14 .*bpf_get_stackid\(\) returned: EFAULT.*kernel thread"),
        (2**32 - errno.EEXIST, r"(?s)no stack 4294967279 .*EEXIST.*make the map larger"),
        (3, "no key 3"),
    ],
)
def test_ids_that_are_none(bpf, key, why):
    stacks = bpf.create_map("stack_trace", max_entries=64)
    with pytest.raises(MapKeyError, match=why):
        _ = stacks[key]
    with pytest.raises(MapKeyError):
        stacks.user(key, os.getpid())
    assert key not in stacks
    assert stacks.get(key) is None


SYSCALL = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct {
    __uint(type, BPF_MAP_TYPE_STACK_TRACE); __uint(max_entries, 64);
    __uint(key_size, 4); __uint(value_size, 256);
} stacks SEC(".maps");
const volatile int pid;
int stack;
SEC("SECTION") int look(void *ctx)
{
    if (bpf_get_current_pid_tgid() >> 32 == pid)
        stack = bpf_get_stackid(ctx, &stacks, 0);
    return 0;
}
"""


@pytest.mark.bpf_requires("tracepoint/syscalls/sys_enter_getppid", "raw_tp/sys_enter")
def test_a_tracepoint_of_system_calls_may_have_no_kernel_stack(bpf):
    """Linux 5.10 and 6.1 look at the registers of user space there."""
    ids = {}
    for section in ("tp/syscalls/sys_enter_getppid", "raw_tp/sys_enter"):
        obj = bpf.load(code=SYSCALL.replace("SECTION", section), globals={"pid": os.getpid()})
        with obj.attach():
            os.getppid()
        ids[section] = obj.globals.stack
    if ids["tp/syscalls/sys_enter_getppid"] < 0:
        with pytest.raises(KeyError, match=r"a kernel stack in a tracepoint of syscalls, take a kprobe"):
            obj.maps.stacks[ids["tp/syscalls/sys_enter_getppid"]]
    assert len(obj.maps.stacks[ids["raw_tp/sys_enter"]]) > 1
