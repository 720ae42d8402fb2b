"""A program that records a process's kernel stack and user stack in a system call."""

import os

from pytest_bpfmaps.kernel.process_symbols import ProcessSymbols

# getppid: nothing else calls it, and libc's function makes only the system call
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


def load_tracer(load_code, process, place=SYSCALL, *, call=GETPPID, flags=0, entry=8, frames=20):
    """Loads and attaches the tracer for the process with that id. Returns the object."""
    context = "struct pt_regs;" if place is KPROBE else ""
    code = TRACE.format(**place, call=call, flags=flags, entry=entry, frames=frames)
    obj = load_code(context + code, globals={"process": process})
    obj.attach()
    return obj


def libc_path():
    """Returns the file of the C library that this process has mapped."""
    (found,) = {m.path for m in ProcessSymbols().mappings if "/libc.so" in m.path or "/libc-" in m.path}
    return found


def assert_in_file(frame, path):
    """Checks that the frame is where the kernel has mapped this file, with or without a symbol."""
    (place,) = [m for m in ProcessSymbols().mappings if m.start <= frame.address < m.end]
    assert frame.file == path == place.path
    if frame.symbol is None:
        assert frame.offset == frame.address - place.start + place.offset
        assert str(frame) == f"{path}+{frame.offset:#x}"
    else:
        assert str(frame) == f"{frame.symbol}+{frame.offset:#x} ({path})"
