"""Stack traces: exact names in kernel and user space, other processes, build ids, run-time code."""

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

from pytest_bpfmaps import MapKeyError, UnsupportedError
from pytest_bpfmaps.elf.functions_by_address import elf_symbols
from pytest_bpfmaps.kernel.kallsyms import KernelSymbols, kernel_symbols
from pytest_bpfmaps.kernel.process_symbols import ProcessSymbols

# getppid: nothing else calls it, and libc's function does nothing but the system call
TRACE = """
struct {{
    __uint(type, BPF_MAP_TYPE_STACK_TRACE);
    __uint(max_entries, 16384); // so many that two stacks don't hash to one place
    __uint(map_flags, {flags});
    __uint(key_size, sizeof(__u32));
    __uint(value_size, {frames} * {entry});
}} stacks SEC(".maps");

const volatile __u32 process;
const volatile long call = {call};
int kernel_stack = -1, user_stack = -1;

SEC("{section}") int trace(struct {context} *ctx)
{{
    if (bpf_get_current_pid_tgid() >> 32 != process {condition})
        return 0;
    kernel_stack = bpf_get_stackid(ctx, &stacks, 0);
    user_stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
    return 0;
}}
"""
SYSCALL = {
    "section": "raw_tp/sys_enter",
    "context": "bpf_raw_tracepoint_args",
    "condition": "|| ctx->args[1] != call",
}
KPROBE = {"section": "kprobe/do_sys_openat2", "context": "pt_regs", "condition": ""}
GETPPID, OPENAT, LSEEK = {"x86_64": (110, 257, 8)}.get(os.uname().machine, (173, 56, 62))

libc = ctypes.CDLL(None)
pytestmark = pytest.mark.bpf_requires("stack_trace", "raw_tracepoint", "raw_tracepoint/sys_enter")


@pytest.fixture
def trace(load_code):
    """Loads and attaches the tracer for a process; gives the object."""

    def load(process, place=SYSCALL, *, call=GETPPID, flags=0, entry=8, frames=20):
        context = "struct pt_regs;" if place is KPROBE else ""
        code = TRACE.format(**place, call=call, flags=flags, entry=entry, frames=frames)
        obj = load_code(context + code, globals={"process": process})
        obj.attach()
        return obj

    return load


# the kernel


def test_the_exact_top_frame_in_the_kernel(trace):
    obj = trace(os.getpid())
    libc.getppid()
    stack = obj.maps.stacks[obj.globals.kernel_stack]
    top = stack[0]
    # a raw tracepoint's stack begins in the program itself, whose name begins with its tag
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
    """Which is what makes it enough to search the text; the judge sorts them all."""
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
    # -S and an import before the change of user: the packages may lie where that user can't read
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


# user space


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


def libc_path():
    (found,) = {m.path for m in ProcessSymbols().mappings if "/libc.so" in m.path or "/libc-" in m.path}
    return found


def assert_in_file(frame, path):
    """The frame is where the kernel says that this file is, whether the file has a symbol for it or not."""
    (place,) = [m for m in ProcessSymbols().mappings if m.start <= frame.address < m.end]
    assert frame.file == path == place.path
    if frame.symbol is None:
        assert frame.offset == frame.address - place.start + place.offset
        assert str(frame) == f"{path}+{frame.offset:#x}"
    else:
        assert str(frame) == f"{frame.symbol}+{frame.offset:#x} ({path})"


def test_all_names_of_a_function(trace):
    """lseek: no C library enters that system call by way of another function."""
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
    """glibc 2.41 enters the system call in a function that it does not export."""
    obj = trace(os.getpid(), call=OPENAT)
    os.close(libc.open64(b"/dev/null", os.O_RDONLY))
    assert_in_file(obj.maps.stacks[obj.globals.user_stack][0], libc_path())


def test_what_is_no_code_is_said_to_be_none(trace):
    """Without a frame pointer the kernel takes something else for a return address: here it is chosen."""
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
    """Another process, which calls getppid when it is told to."""
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
    # this process has the same libc, so that the names can be had when the child is gone
    child.kill()
    child.wait()
    assert obj.maps.stacks[obj.globals.user_stack][0].symbol == "getppid"


def test_code_that_was_made_at_run_time(trace):
    if os.uname().machine != "x86_64":
        pytest.skip("machine code of x86-64")
    code = b"\xb8" + GETPPID.to_bytes(4, "little") + b"\x0f\x05\xc3"  # mov $nr, %eax; syscall; ret
    with mmap.mmap(-1, mmap.PAGESIZE, prot=7) as memory:  # all rights
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
    """A file that is gone is still to be had from the process that has it mapped."""
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


# the map


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
    assert trace_of_it[0].symbol == "getppid"  # it needs the map no more
    stacks = trace(os.getpid()).maps.stacks
    libc.getppid()
    stacks.clear()
    assert len(stacks) == 0


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (-errno.EFAULT, r"(?s)no stack -14 .*bpf_get_stackid\(\) gave: EFAULT.*kernel thread"),
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
