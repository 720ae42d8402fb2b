"""From where does a Python program open files? Stack traces in the kernel and in user space."""

import os

import pytest

pytestmark = pytest.mark.bpf_requires("stack_trace", "kprobe/do_sys_openat2")


def open_files(count):
    for _ in range(count):
        os.close(os.open("/dev/null", os.O_RDONLY))


@pytest.fixture
def origin(bpf):
    """The program, and the origin of the only system call that came three times."""
    tracer = bpf.load("stack_traces.bpf.c", globals={"traced": os.getpid()})
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
    assert any("openat" in symbol for symbol in trace.symbols[1:] if symbol)


def test_the_stack_in_user_space(origin):
    stacks, origin = origin
    trace = stacks[origin.user_stack]
    print(trace)
    # the frame has a symbol if libc has one for it: glibc 2.41 enters many system calls in a function without
    assert "libc" in trace[0].file
    assert trace[0].offset > 0
    assert not trace[0].in_kernel
