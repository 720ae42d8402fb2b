"""Measures what a run in an emulated machine costs: `pytest --bpf-kernel`, and pytest in virtme-ng."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import peers
from benchmark import WALL, Absent, Benchmark, Sides

from pytest_bpfmaps import paths
from pytest_bpfmaps.vm.boot import saved_states
from pytest_bpfmaps.vm.gateway.journal import Journal
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.kernel import Kernel

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
PLAIN = """
import pytest

@pytest.mark.parametrize("n", range({count}))
def test_short(n):
    assert n >= 0
"""
MORE = 50
MATRIX = 4  # number of kernels
MOST_MS, MATRIX_S, READY_S, MEMORY_MB, DISK_MB = 30.0, 20.0, 1.5, 100.0, 150.0
MOST_BUSY = 3.0


def project(more: int = 0) -> Path:
    """Makes a folder with the two tests, and `more` tests that do next to nothing."""
    keep = tempfile.TemporaryDirectory(prefix="bench-", dir=paths.cache_dir())  # virtme-ng hides /tmp
    peers.scratch_folders.append(keep)
    folder = Path(keep.name)
    (folder / "test_guest.py").write_text(TESTS + (SHORT.format(count=more) if more else ""))
    return folder


def seconds(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> float:
    """Returns what a command takes with everything that it starts: processor time or wall time.

    Raises RuntimeError when its tests do not pass.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # for virtme-run
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
    """Returns the kernel of the catalogue that is measured: the oldest from 6.1 on."""
    found = [k for k in Catalogue() if k.vmlinux is not None and k.name >= "6"]
    if not found:
        raise Absent("bpfmaps kernels fetch debian:bookworm")
    return found[0]


def ours(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> float:
    return seconds([sys.executable, "-m", "pytest", "-q", *arguments], folder, environment)


@functools.cache
def virtme(folder: Path, kernel: Kernel) -> float:
    """Measures the tests in virtme-ng, once, because it takes a minute."""
    vng = Path(sys.executable).with_name("vng")
    if not vng.exists():
        raise Absent("pip install virtme-ng")
    ours(folder, "--bpf-kernel=host")  # so that clang has nothing to do later
    cache = f"BPFMAPS_CACHE={paths.cache_dir()}"  # vng does not pass the environment on
    program = f"cd {folder} && {cache} {sys.executable} -m pytest -q test_guest.py"
    command = [str(vng), "--run", str(kernel.image), "--force-9p", "--disable-kvm", "--cpus", "2"]
    command += ["--memory", "1G", "--overlay-rwdir", str(paths.cache_dir()), "--exec", program]
    if not sys.stdin.isatty():  # vng needs a terminal
        command = ["script", "-qec", shlex.join(command), "/dev/null"]
    return seconds(command, folder)


@functools.cache
def two_tests() -> Path:
    return project()


def warm(stack: contextlib.ExitStack) -> Sides:
    """Measures with a saved state and compiled objects in the cache."""
    folder, chosen = two_tests(), f"--bpf-kernel={kernel().name}"
    ours(folder, chosen)
    return lambda: ours(folder, chosen), lambda: virtme(folder, kernel())


def first(stack: contextlib.ExitStack) -> Sides:
    """Measures with kernels in the cache, and nothing else."""
    folder, chosen = two_tests(), f"--bpf-kernel={kernel().name}"

    def from_nothing() -> float:
        with tempfile.TemporaryDirectory(dir=peers.scratch()) as cache:
            Path(cache, "kernels").symlink_to(paths.kernels_dir())
            verdict = paths.cache_dir() / "kvm.json"
            if verdict.exists():  # it takes eight seconds, and does not depend on a kernel
                shutil.copy(verdict, cache)
            return ours(folder, chosen, environment={"BPFMAPS_CACHE": cache})

    return from_nothing, lambda: virtme(folder, kernel())


def one_more(stack: contextlib.ExitStack) -> Sides:
    """Measures one more test among many that do nothing, in a guest and on the host."""
    few, many = project(1), project(1 + MORE)

    def cost(*arguments: str) -> float:
        return (ours(many, *arguments) - ours(few, *arguments)) / MORE * 1e3

    chosen = f"--bpf-kernel={kernel().name}"
    ours(few, chosen)
    return lambda: cost(chosen), lambda: max(cost("--bpf-kernel=host"), 0.1)


def one_more_in_the_guest(stack: contextlib.ExitStack) -> Sides:
    """Measures one more test in a guest, and one more of pytest that is started in such a guest by hand."""
    few, many, chosen = project(1), project(1 + MORE), kernel().name
    for folder, count in ((few, 1), (many, 1 + MORE)):
        (folder / "plain.py").write_text(PLAIN.format(count=count))
    inside = [sys.executable, "-m", "pytest", "-q", "-p", "no:bpfmaps", "-p", "no:cacheprovider", "plain.py"]
    command = [sys.executable, "-m", "pytest_bpfmaps.cli", "exec", chosen, "--", *inside]

    def difference(measured: Callable[[Path], float]) -> float:
        return (measured(many) - measured(few)) / MORE * 1e3

    ours(few, f"--bpf-kernel={chosen}")
    return (
        lambda: difference(lambda folder: ours(folder, f"--bpf-kernel={chosen}")),
        lambda: max(difference(lambda folder: seconds(command, folder)), 0.1),
    )


def busy_matrix(stack: contextlib.ExitStack) -> Sides:
    """Measures the matrix while each processor has other work, and without that."""
    folder = project(MORE)
    arguments = f"--bpf-kernel={','.join(one.name for one in kernels())}"
    ours(folder, arguments)

    def busy() -> float:
        with contextlib.ExitStack() as others:
            for _ in range(os.cpu_count() or 1):
                other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                others.enter_context(other)
                others.callback(other.kill)
            return ours(folder, arguments)

    return busy, lambda: ours(folder, arguments)


def matrix(stack: contextlib.ExitStack) -> Sides:
    """Measures fifty more tests on each of four kernels, and one virtme-ng after the other."""
    folder, chosen = project(MORE), kernels()
    arguments = f"--bpf-kernel={','.join(one.name for one in chosen)}"
    ours(folder, arguments)
    return lambda: ours(folder, arguments), lambda: sum(virtme(folder, one) for one in chosen)


def kernels() -> list[Kernel]:
    """Returns four kernels of the catalogue."""
    found = [one for one in Catalogue() if one.vmlinux is not None]
    if len(found) < MATRIX:
        raise Absent("bpfmaps kernels fetch debian:bullseye debian:bookworm debian:trixie debian:sid")
    return found[:MATRIX]


@contextlib.contextmanager
def guest() -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Gives a gateway whose guest is ready and has nothing to do yet, and how long that took."""
    with contextlib.closing(Journal()) as told:
        yield from _started(told)


def _started(told: Journal) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    command = [sys.executable, "-m", "pytest_bpfmaps.vm.gateway", kernel().name, "--journal", told.path]
    folder = two_tests()  # as `ours`: a state depends on where Python looks for modules
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as gateway:
        assert gateway.stdin is not None
        gateway.stdin.write(b"id='bench-worker'\n")
        gateway.stdin.flush()
        while not told.entries("bench") and gateway.poll() is None:
            time.sleep(0.01)
        entries = told.entries("bench")
        if not entries:
            raise RuntimeError(f"the gateway ended with status {gateway.wait()}")
        if entries[0].event != "ready":
            raise RuntimeError(f"{entries[0].text}\n{entries[0].console}")
        yield gateway, entries[0].seconds
        gateway.stdin.close()


def ready(stack: contextlib.ExitStack) -> Sides:
    """Measures wall time from QEMU's start until the guest has the host's files."""
    ours(two_tests(), f"--bpf-kernel={kernel().name}")

    def measured() -> float:
        with guest() as (_, seconds):
            return seconds

    return measured, lambda: READY_S


def memory(stack: contextlib.ExitStack) -> Sides:
    """Measures the memory that such a guest does not share with its saved state and with other guests."""
    ours(two_tests(), f"--bpf-kernel={kernel().name}")

    def measured() -> float:
        with guest() as (gateway, _):
            (qemu,) = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
            (dirty,) = re.findall(r"Private_Dirty: +(\d+)", Path(f"/proc/{qemu}/smaps_rollup").read_text())
            return int(dirty) * 1024 / 1e6

    return measured, lambda: MEMORY_MB


def disk(stack: contextlib.ExitStack) -> Sides:
    """Measures the largest saved state."""
    for one in kernels():
        ours(two_tests(), f"--bpf-kernel={one.name}")
    return lambda: max(one.size for one in saved_states.states() if one.is_current()) / 1e6, lambda: DISK_MB


BENCHMARKS = [
    Benchmark("guest-two-tests", "s", "virtme-ng", 1 / 12, warm, lower=True),
    Benchmark("guest-first-run", "s", "virtme-ng", 1 / 3, first, lower=True),
    Benchmark("guest-one-more-test", "ms", "the host", lambda peer: MOST_MS / peer, one_more, lower=True),
    Benchmark(
        "guest-four-kernels", "s", "virtme-ng", lambda peer: min(1 / 8, MATRIX_S / peer), matrix, lower=True
    ),
    Benchmark("guest-one-more-alone", "ms", "pytest alone", 2, one_more_in_the_guest, lower=True),
    Benchmark("guest-four-kernels-busy", "s", "an idle host", MOST_BUSY, busy_matrix, lower=True),
    Benchmark("guest-ready", "s", "the goal", 1, ready, lower=True),
    Benchmark("guest-memory", "MB", "the goal", 1, memory, lower=True),
    Benchmark("guest-state", "MB", "the goal", 1, disk, lower=True),
]
