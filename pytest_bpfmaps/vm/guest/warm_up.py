"""Has a guest that waits for its run do what a run does: a small session of pytest, and a small program.

An emulator translates each piece of machine code when it is executed for the first time, and keeps the
translation. The first test of a run takes twice as long because of that. A guest of ``--bpf-watch`` has the
time to do this before its run comes. A child process does it, so that the worker stays as it was.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from pytest_bpfmaps.vm.guest import preload

FOLDER = "/run"  # a file system in memory

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");
__u64 calls;

SEC("tracepoint/syscalls/sys_enter_getpgid")
int count(void *ctx)
{
	__u32 key = 1;
	__u64 one = 1;

	calls++;
	bpf_map_update_elem(&seen, &key, &one, BPF_ANY);
	return 0;
}

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
"""


def warm_up(program: str | None, control: int) -> None:
    """Does it, and ends early when something can be read from `control`. `program` is the object's path."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                _act(program, folder)
            os._exit(0)
        with _ended(child) as end:
            select.select([control, end], [], [])


@contextlib.contextmanager
def _ended(child: int) -> Iterator[int]:
    """Gives a descriptor that can be read when the child has ended. Ends it at last."""
    end = os.pidfd_open(child)
    try:
        yield end
    finally:
        signal.pidfd_send_signal(end, signal.SIGKILL)
        os.close(end)
        os.waitpid(child, 0)


def _act(program: str | None, folder: str) -> None:
    preload.run_session(folder)
    subprocess.run(["sh", "-c", "read word; echo $word"], input=b"word\n", capture_output=True, check=False)
    if program is None:
        return
    sha256(Path(program).read_bytes()).hexdigest()
    harness = importlib.import_module("pytest_bpfmaps.harness")  # by name: it is above this package
    with harness.Bpf(None, [Path(folder)]) as bpf:
        for _ in range(2):
            loaded = bpf.load(program)
            loaded.programs["pass"].run(bytes(64))
            with contextlib.suppress(Exception), loaded.attach():  # a kernel without this tracepoint
                os.getpgid(0)
            loaded.maps.seen[1] = 2
            assert loaded.maps.seen == {1: 2}
            assert loaded.globals.calls >= 0
            loaded.close()
