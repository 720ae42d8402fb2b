"""Count system calls by process, in a hash map."""

import os
import subprocess

import pytest

pytestmark = pytest.mark.bpf_requires("tracepoint/syscalls/sys_enter_openat")

# the child answers two times: when it has started, and when it has opened five files
CHILD = """
read word; echo $word
read word
for i in 1 2 3 4 5; do : </dev/null; done
echo $word
"""


def open_files(count):
    for _ in range(count):
        os.close(os.open("/dev/null", os.O_RDONLY))


def test_counts_openat_per_process(bpf, bpf_kernel):
    print("running on", bpf_kernel.release)
    counter = bpf.load("process_counter.bpf.c")
    child = subprocess.Popen(["sh", "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        say(child, "ready")
        with counter.attach():
            open_files(3)
            say(child, "done")

    assert counter.maps.process_count[os.getpid()] == 3
    assert counter.maps.process_count[child.pid] == 5


# lets the child do its next step, and waits for its answer
def say(child, word):
    print(word, file=child.stdin, flush=True)
    assert child.stdout.readline() == word + "\n"


def test_detached_program_counts_no_more(bpf):
    counter = bpf.load("process_counter.bpf.c")
    with counter.attach():
        open_files(1)
    open_files(10)
    assert counter.maps.process_count[os.getpid()] == 1
