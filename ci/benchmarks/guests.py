"""What a run in an emulated machine costs: `pytest --bpf-kernel` beside virtme-ng that runs pytest."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers
from benchmark import WALL, Absent, Benchmark, Sides

from pytest_bpfmaps import paths
from pytest_bpfmaps.vm.catalogue import Catalogue, Kernel

TESTS = """
import os
import pytest

SOURCE = '''
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 64);
    __type(key, __u32);
    __type(value, __u64);
} counts SEC(".maps");

SEC("raw_tp/sys_enter") int on_call(void *ctx)
{
    __u32 key = bpf_get_current_pid_tgid() >> 32;
    __u64 one = 1;

    bpf_map_update_elem(&counts, &key, &one, BPF_ANY);
    return 0;
}
char LICENSE[] SEC("license") = "GPL";
'''

def test_counts(bpf):
    counter = bpf.load(code=SOURCE)
    with counter.attach():
        os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpid() in counter.maps.counts

def test_starts_empty(bpf):
    assert len(bpf.load(code=SOURCE).maps.counts) == 0
"""
SHORT = """
@pytest.mark.parametrize("n", range({count}))
def test_short(bpf_kernel, n):
    assert bpf_kernel.release
"""
MORE = 50
MOST_MS = 30.0


def project(more: int = 0) -> Path:
    """A folder with the two tests, and some that do next to nothing."""
    keep = tempfile.TemporaryDirectory(prefix="bench-", dir=paths.cache_dir())  # virtme-ng hides /tmp
    peers.scratch_folders.append(keep)
    folder = Path(keep.name)
    (folder / "test_guest.py").write_text(TESTS + (SHORT.format(count=more) if more else ""))
    return folder


def seconds(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> float:
    """What a command takes with all that it starts, of processor time or of wall time. It must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # virtme-run
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or " passed" not in done.stdout:
        raise RuntimeError(f"{shlex.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    if WALL in os.environ:
        return ended - began
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def kernel() -> Kernel:
    """The one of the catalogue that is measured: the oldest from 6.1 on."""
    found = [k for k in Catalogue() if k.vmlinux is not None and k.name >= "6"]
    if not found:
        raise Absent("bpfmaps kernels fetch debian:bookworm")
    return found[0]


def ours(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> float:
    return seconds([sys.executable, "-m", "pytest", "-q", *arguments], folder, environment)


@functools.cache
def virtme(folder: Path) -> float:
    """The two tests by virtme-ng; once, for it takes a minute."""
    vng = Path(sys.executable).with_name("vng")
    if not vng.exists():
        raise Absent("pip install virtme-ng")
    ours(folder, "--bpf-kernel=host")  # clang's work is done
    program = f"cd {folder} && {sys.executable} -m pytest -q test_guest.py"
    command = [str(vng), "--run", str(kernel().image), "--force-9p", "--disable-kvm", "--cpus", "2"]
    command += ["--memory", "1G", "--overlay-rwdir", str(paths.cache_dir()), "--exec", program]
    if not sys.stdin.isatty():  # vng wants a terminal
        command = ["script", "-qec", shlex.join(command), "/dev/null"]
    return seconds(command, folder)


@functools.cache
def two_tests() -> Path:
    return project()


def warm(stack: contextlib.ExitStack) -> Sides:
    """A state is there, and so is bytecode of BPF."""
    folder, chosen = two_tests(), f"--bpf-kernel={kernel().name}"
    ours(folder, chosen)
    return lambda: ours(folder, chosen), lambda: virtme(folder)


def first(stack: contextlib.ExitStack) -> Sides:
    """The cache has the kernels and nothing else."""
    folder, chosen = two_tests(), f"--bpf-kernel={kernel().name}"

    def from_nothing() -> float:
        with tempfile.TemporaryDirectory(dir=peers.scratch()) as cache:
            Path(cache, "kernels").symlink_to(paths.kernels_dir())
            verdict = paths.cache_dir() / "kvm.json"
            if verdict.exists():  # it took eight seconds, and is not about a kernel
                shutil.copy(verdict, cache)
            return ours(folder, chosen, environment={"BPFMAPS_CACHE": cache})

    return from_nothing, lambda: virtme(folder)


def one_more(stack: contextlib.ExitStack) -> Sides:
    """Of many that do nothing, in a guest and on the host."""
    few, many = project(1), project(1 + MORE)

    def cost(*arguments: str) -> float:
        return (ours(many, *arguments) - ours(few, *arguments)) / MORE * 1e3

    chosen = f"--bpf-kernel={kernel().name}"
    ours(few, chosen)
    return lambda: cost(chosen), lambda: max(cost("--bpf-kernel=host"), 0.1)


BENCHMARKS = [
    Benchmark("guest-two-tests", "s", "virtme-ng", 1 / 12, warm, lower=True),
    Benchmark("guest-first-run", "s", "virtme-ng", 1 / 3, first, lower=True),
    Benchmark("guest-one-more-test", "ms", "the host", lambda peer: MOST_MS / peer, one_more, lower=True),
]
