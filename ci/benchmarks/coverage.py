"""Measures what coverage costs: the gallery's tests on this kernel and in a guest, and instructions."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import guests
import peers
from benchmark import WALL, Absent, Benchmark, Sides

from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.coverage.counters.llvm_tools import tools_for
from pytest_bpfmaps.elf.editor import SHF_EXECINSTR, Elf
from pytest_bpfmaps.errors import CompileError, UnsupportedError

ROOT = Path(__file__).parents[2]
MOST_TIME, MOST_INSTRUCTIONS, MOST_GUEST_TIME = 1.3, 1.1, 1.5
WITHOUT_MCDC = "coverage without MC/DC"


LINES = ("--bpf-cov", "--bpf-cov-report=none")


def command(*options: str, kernel: str = "host") -> float:
    """Returns the seconds that the gallery's tests take, as a whole command."""
    arguments = ["-q", "-p", "no:cacheprovider", f"--bpf-kernel={kernel}", *options, "tests/gallery"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "BPF_COVERAGE_FILE": str(peers.scratch() / "coverage")}
    run = [sys.executable, "-m", "pytest", *arguments]
    subprocess.run(run, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    if WALL in os.environ:
        return ended - began
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def needs_tools() -> None:
    try:
        tools_for(LocalCompiler().clang.path)
    except UnsupportedError as e:
        raise Absent(str(e)) from e


def needs_mcdc() -> None:
    source = ROOT / "bpf/drop_port.bpf.c"
    try:
        LocalCompiler().compile(CompileRequest(source=str(source), counting=True, mcdc=True))
    except CompileError as e:
        raise Absent(f"{e}: clang 18 and later have MC/DC") from e


def gallery(stack: contextlib.ExitStack) -> Sides:
    needs_tools()
    command(*LINES)  # compiles
    return lambda: command(*LINES), command


def mcdc(stack: contextlib.ExitStack) -> Sides:
    needs_tools()
    needs_mcdc()
    command(*LINES, "--bpf-cov-mcdc")  # compiles
    command(*LINES)
    return lambda: command(*LINES, "--bpf-cov-mcdc"), lambda: command(*LINES)


def guest(stack: contextlib.ExitStack) -> Sides:
    kernel = guests.kernel().name
    blocks = ("--bpf-cov", "--bpf-cov-engine=blocks", "--bpf-cov-report=none")
    command(*blocks, kernel=kernel)  # compiles, and saves a state
    return lambda: command(*blocks, kernel=kernel), lambda: command(kernel=kernel)


def instructions(*, counting: bool, mcdc: bool = False) -> float:
    """Returns the instructions of all the gallery's programs, in slots of 8 bytes."""
    total, compiler = 0, LocalCompiler()
    for source in sorted(ROOT.glob("bpf/*.bpf.c")):
        request = CompileRequest(
            source=str(source), include=(str(ROOT / "bpf"),), counting=counting, mcdc=mcdc
        )
        try:
            elf = Elf(compiler.compile(request).read_bytes())
        except CompileError:  # it needs a newer clang
            continue
        total += sum(len(elf.content(s)) for s in elf.sections if s.flags & SHF_EXECINSTR) // 8
    return float(total)


def sizes(stack: contextlib.ExitStack) -> Sides:
    return lambda: instructions(counting=True), lambda: instructions(counting=False)


def mcdc_sizes(stack: contextlib.ExitStack) -> Sides:
    needs_mcdc()
    return lambda: instructions(counting=True, mcdc=True), lambda: instructions(counting=True)


BENCHMARKS = [
    Benchmark("coverage-gallery", "s", "without coverage", MOST_TIME, gallery, lower=True),
    Benchmark("coverage-guest", "s", "without coverage", MOST_GUEST_TIME, guest, lower=True),
    Benchmark("coverage-mcdc-gallery", "s", WITHOUT_MCDC, MOST_TIME, mcdc, lower=True),
    Benchmark(
        "coverage-instructions", "instructions", "the plain programs", MOST_INSTRUCTIONS, sizes, lower=True
    ),
    Benchmark(
        "coverage-mcdc-instructions", "instructions", WITHOUT_MCDC, MOST_INSTRUCTIONS, mcdc_sizes, lower=True
    ),
]
