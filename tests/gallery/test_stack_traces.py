"""Find the code that opens files in a Python program, with stack traces in the kernel and in user space."""

import os

import pytest

pytestmark = pytest.mark.bpf_requires("stack_trace", "kprobe/do_sys_openat2")


def open_files(count):
    for _ in range(count):
        os.close(os.open("/dev/null", os.O_RDONLY))


@pytest.fixture
def origin(bpf):
    """Returns the program, and the stacks of the only system call that came three times."""
    tracer = bpf.load("stack_traces.bpf.c", globals={"traced": os.getpid()})
    open_files(20)  # Python adapts code that runs often: it then calls from another place
    with tracer.attach():
        open_files(3)
    (origin,) = (o for o, count in tracer.maps.origins.items() if count == 3)
    return tracer.maps.stacks, origin


def test_the_stack_in_the_kernel(origin):
    stacks, origin = origin
    trace = stacks[origin.kernel_stack]
    print(trace)  # one line per frame: do_sys_openat2+0x1 (vmlinux) …
    assert trace[0].symbol == "do_sys_openat2"
    assert trace[0].file == "vmlinux"
    assert any("syscall" in symbol for symbol in trace.symbols[1:] if symbol)  # do_syscall_64 …


def test_the_stack_in_user_space(origin):
    stacks, origin = origin
    trace = stacks[origin.user_stack]
    print(trace)
    # the frame has no symbol when libc has none: glibc 2.41 makes many system calls in such a function
    assert "libc" in trace[0].file
    assert trace[0].offset > 0
    assert not trace[0].in_kernel
