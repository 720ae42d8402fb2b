"""Tests stack traces in user space: exact names, other processes, build ids, run-time code."""

import ctypes
import errno
import mmap
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stack_traces import GETPPID, LSEEK, OPENAT, assert_in_file, libc_path

from pytest_bpfmaps import UnsupportedError
from pytest_bpfmaps.elf.functions_by_address import elf_symbols
from pytest_bpfmaps.kernel.process_symbols import ProcessSymbols

libc = ctypes.CDLL(None)
pytestmark = pytest.mark.bpf_requires("stack_trace", "raw_tracepoint", "raw_tracepoint/sys_enter")


def test_the_exact_top_frame_in_user_space(trace):
    obj = trace(os.getpid())
    libc.getppid()
    top = obj.maps.stacks[obj.globals.user_stack][0]
    assert top.symbol == "getppid"
    assert top.names == ("getppid",)
    start = ctypes.cast(libc.getppid, ctypes.c_void_p).value
    assert (top.address - start, top.in_kernel) == (top.offset, False)
    assert 0 < top.offset < 32
    assert "libc" in top.file
    assert str(top) == f"getppid+{top.offset:#x} ({top.file})"


def test_all_names_of_a_function(trace):
    """Every C library makes this system call, lseek, in the function of that name."""
    obj = trace(os.getpid(), call=LSEEK)
    with open("/dev/null") as file:
        libc.lseek(file.fileno(), 0, os.SEEK_SET)
    top = obj.maps.stacks[obj.globals.user_stack][0]
    printed = subprocess.run(["nm", "-D", libc_path()], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in printed.splitlines() if line[0] != " "]
    (place,) = {address for address, _, name in lines if name.partition("@")[0] == "lseek"}
    names = {name.partition("@")[0] for address, _, name in lines if address == place}
    assert top.symbol == "lseek"
    assert set(top.names) >= names
    assert len(names) > 1


def test_a_function_that_may_be_cancelled(trace):
    """glibc 2.41 makes the system call in a function that it does not export."""
    obj = trace(os.getpid(), call=OPENAT)
    os.close(libc.open64(b"/dev/null", os.O_RDONLY))
    assert_in_file(obj.maps.stacks[obj.globals.user_stack][0], libc_path())


def test_what_is_no_code_is_said_to_be_none(trace):
    """Without a frame pointer the kernel reads a wrong return address. The test chooses its value."""
    if os.uname().machine != "x86_64":
        pytest.skip("machine code of x86-64")
    # push rbp; push 0x1234 in place of a return address; a frame on top of that; the system call
    code = bytes.fromhex("55 68 34120000 55 4889e5 b8") + GETPPID.to_bytes(4, "little")
    code += bytes.fromhex("0f05 5d 4883c408 5d c3")
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, mmap.PAGESIZE, flags=private, prot=7) as memory:
        memory[: len(code)] = code
        view = ctypes.c_char.from_buffer(memory)
        obj = trace(os.getpid())
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(view))()
        del view
        frames = obj.maps.stacks[obj.globals.user_stack]
        assert (frames[0].symbol, frames[0].file, frames[0].offset) == (None, None, None)
        assert str(frames[0]) == f"{frames[0].address:#x} (in memory of no file)"
        assert (frames[1].address, frames[1].symbol, frames[1].file) == (0x1234, None, None)
        assert str(frames[1]) == "0x1234 (no code is mapped there)"


CHILD = """
import ctypes, sys
libc = ctypes.CDLL(sys.argv[1] if len(sys.argv) > 1 else None)
print("ready", flush=True)
for line in sys.stdin:
    libc.getppid()
    print("done", flush=True)
"""


def started_child(*arguments):
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", CHILD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def child():
    """Starts a process that calls getppid on request."""
    with started_child() as process:
        yield process
        if process.poll() is None:
            process.stdin.close()


def call(child):
    print("go", file=child.stdin, flush=True)
    assert child.stdout.readline() == "done\n"


def test_another_process(trace, child):
    obj = trace(child.pid)
    call(child)
    stacks, number = obj.maps.stacks, obj.globals.user_stack
    for process in (child, child.pid, ProcessSymbols(child)):
        top = stacks.user(number, process)[0]
        assert (top.symbol, top.offset < 32) == ("getppid", True)


def test_a_process_that_has_ended(trace, child):
    obj = trace(child.pid)
    call(child)
    earlier = ProcessSymbols(child.pid)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie: it has a pid, and no memory
    stacks, number = obj.maps.stacks, obj.globals.user_stack
    for _ in range(2):
        with pytest.raises(
            UnsupportedError, match=rf"(?s)process {child.pid}: it has ended.*ProcessSymb"
        ) as e:
            stacks.user(number, child)
        assert e.value.errno == errno.ESRCH
        child.wait()
    assert stacks.user(number, earlier)[0].symbol == "getppid"


BUILD_ID = 1 << 5


def test_build_ids(trace, child):
    obj = trace(child.pid, flags=BUILD_ID, entry=32)
    call(child)
    top = obj.maps.stacks.user(obj.globals.user_stack, child)[0]
    libc_file = libc_path()
    assert top.build_id == elf_symbols(libc_file).build_id
    assert top.symbol == "getppid"
    assert top.file == libc_file
    assert 0 < top.offset < 32
    # this process has the same libc, so the names are available after the child has ended
    child.kill()
    child.wait()
    assert obj.maps.stacks[obj.globals.user_stack][0].symbol == "getppid"


def test_code_that_was_made_at_run_time(trace):
    if os.uname().machine != "x86_64":
        pytest.skip("machine code of x86-64")
    code = b"\xb8" + GETPPID.to_bytes(4, "little") + b"\x0f\x05\xc3"  # mov $nr, %eax; syscall; ret
    with mmap.mmap(-1, mmap.PAGESIZE, prot=7) as memory:  # 7: read, write, execute
        memory[: len(code)] = code
        view = ctypes.c_char.from_buffer(memory)
        start = ctypes.addressof(view)
        perf_map = Path(f"/tmp/perf-{os.getpid()}.map")
        perf_map.write_text(
            f"{start:x} {len(code):x} made here\n{start + 64:x} 10 another\nno numbers here\n"
        )
        try:
            obj = trace(os.getpid())
            ctypes.CFUNCTYPE(ctypes.c_int)(start)()
            top = obj.maps.stacks[obj.globals.user_stack][0]
            assert (top.symbol, top.offset, top.file) == ("made here", 7, str(perf_map))
        finally:
            perf_map.unlink()
            del view


def test_a_deleted_library(trace, tmp_path):
    """A process that has mapped a deleted file still gives access to it."""
    libc_file = libc_path()
    library = tmp_path / "deleted.so"
    shutil.copy(libc_file, library)
    with started_child(str(library)) as child:
        library.unlink()
        obj = trace(child.pid)
        call(child)
        top = obj.maps.stacks.user(obj.globals.user_stack, child)[0]
        assert top.symbol == "getppid"
        assert top.file == f"{library} (deleted)"
        child.stdin.close()
