"""Tests ``bpf_vmlinux``: whose types a source gets, on the host and in guests."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from caches import CACHE
from shown_blocks import shows

from pytest_bpfmaps.vm.kernels.catalogue import Catalogue, age

KERNELS = {kernel.name: kernel for kernel in Catalogue() if kernel.btf}

# task_struct has 'state' up to Linux 5.13, and '__state' since then. So the object shows which header was
# read.
CODE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("xdp") int p(struct xdp_md *ctx) { return XDP_PASS; }
const volatile int where = __builtin_offsetof(struct task_struct, pid);
"""
OWN = """
struct xdp_md;
enum xdp_action { XDP_PASS = 2 };
struct task_struct { char before[12]; int pid; };
typedef unsigned char __u8; typedef short __s16; typedef unsigned short __u16; typedef int __s32;
typedef unsigned int __u32; typedef long long __s64; typedef unsigned long long __u64;
typedef __u16 __be16; typedef __u32 __be32; typedef __u64 __be64; typedef __u32 __wsum;
"""
TEST = f"""
def test_it(bpf):
    made = bpf.compile(code={CODE!r})
    print("made", made, "where", bpf.load(made).globals.where, "end")
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makepyfile(TEST)

    def run(*arguments: str, tests: int = 1) -> tuple[list[tuple[str, int]], pytest.RunResult]:
        result = pytester.runpytest_subprocess("-rP", *arguments)
        result.assert_outcomes(passed=tests)
        made = re.findall(r"^made (\S+) where (\d+) end$", result.stdout.str(), re.MULTILINE)
        return [(path, int(where)) for path, where in made], result

    return run


def place_in(btf: Path) -> int:
    """Returns the offset of the pid in task_struct, in bytes, by a kernel's BTF."""
    from pytest_bpfmaps.btf import Btf, Kind

    found = Btf(btf.read_bytes()).find("task_struct", Kind.STRUCT)
    assert found is not None
    return next(m.bit_offset for m in found.members() if m.name == "pid") // 8


@pytest.mark.skipif("5.10" not in KERNELS, reason="needs kernel 5.10 in the catalogue: bpfmaps kernels fetch")
def test_host_and_guest_load_one_object(run):
    made, result = run("--bpf-kernel=host,5.10", tests=2)
    assert len(made) == 2
    assert len(set(made)) == 1
    newest = max((k.release for k in KERNELS.values()), key=age)
    host = os.uname().release
    result.stdout.fnmatch_lines([f"bpfmaps: vmlinux.h of * ({max(newest, host, key=age)}), the newest"])
    said = re.sub(r"(vmlinux\.h of) \S+ \(\S+\)", r"\1 7.2 (7.2.13+deb14-amd64)", result.stdout.str())
    shows("compiling.md", "vmlinux.h of 7.2", said)


@pytest.mark.skipif("5.10" not in KERNELS, reason="needs kernel 5.10 in the catalogue: bpfmaps kernels fetch")
def test_each_kernel_may_have_its_own(run):
    made, result = run("--bpf-kernel=host,5.10", "--bpf-vmlinux=per-kernel", tests=2)
    wanted = {place_in(Path("/sys/kernel/btf/vmlinux")), place_in(KERNELS["5.10"].btf)}
    assert {where for _, where in made} == wanted
    assert len({path for path, _ in made}) == 2
    result.stdout.fnmatch_lines(["bpfmaps: vmlinux.h of each kernel, *"])


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_of_the_catalogue_is_named(run, name):
    made, result = run(f"--bpf-vmlinux={name}")
    assert made[0][1] == place_in(KERNELS[name].btf)
    result.stdout.fnmatch_lines([f"bpfmaps: vmlinux.h of {name} ({KERNELS[name].release})"])


def test_a_file_is_named(run, pytester):
    headers = pytester.mkdir("headers")
    (headers / "vmlinux.h").write_text(OWN)
    for path in ("headers/vmlinux.h", "headers"):
        made, result = run(f"--bpf-vmlinux={path}")
        assert made[0][1] == 12
        result.stdout.fnmatch_lines([f"bpfmaps: vmlinux.h from {path}"])
    (headers / "vmlinux.h").write_text(OWN.replace("before[12]", "before[16]"))
    assert run("--bpf-vmlinux=headers")[0][0][1] == 16
    for kernel in list(KERNELS.values())[:1]:
        assert run(f"--bpf-vmlinux={kernel.btf}")[0][0][1] == place_in(kernel.btf)


def test_the_projects_own_comes_first(run, pytester):
    (pytester.mkdir("bpf") / "vmlinux.h").write_text(OWN)
    made, result = run()
    assert made[0][1] == 12
    result.stdout.fnmatch_lines(["bpfmaps: vmlinux.h: the project's own, bpf/vmlinux.h"])


def test_the_ini_option(run, pytester):
    folder = pytester.mkdir("headers")
    (folder / "vmlinux.h").write_text(OWN)
    pytester.makeini("[pytest]\nbpf_vmlinux = headers/vmlinux.h\n")
    assert run()[0][0][1] == 12


@pytest.mark.parametrize("arguments", [[], ["--bpf-kernel=host"]], ids=["plain", "host"])
def test_workers_of_this_machine_are_told_of_in_the_header(run, arguments):
    _, result = run("-n", "2", *arguments)
    lines = [line for line in result.outlines if line.startswith("bpfmaps: vmlinux.h ")]
    assert len(lines) == 1
    assert lines[0].endswith(", the newest")


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one", "workers"])
@pytest.mark.parametrize("value", ["5.99", "no/such/vmlinux.h"])
def test_what_is_not_there_is_refused(pytester, monkeypatch, value, workers):
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess(f"--bpf-vmlinux={value}", *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert value in result.stderr.str() + result.stdout.str()
