"""Tests ``--bpf-gdb``: a person attaches a real gdb to a guest's kernel at a failing test."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from installed import installed
from person import Person
from qemus import qemus_for, wait_until
from shown_blocks import shows

from pytest_bpfmaps import paths

CACHE = paths.cache_dir()  # read before pytester changes HOME
OPTIONS = ["-p", "no:cacheprovider", "--bpf-vm-timeout=120", "--bpf-gdb"]
Starts = Callable[..., Person]

TESTS = '''
    from pytest_bpfmaps import XDP_DROP

    def test_fails(bpf_kernel):
        with open("/proc/kallsyms") as file:
            address = next(line.split()[0] for line in file if line.split()[2] == "linux_banner")
        assert not address, f"the banner is at 0x{address}."

    def test_drops(bpf):
        code = """
        #include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        char LICENSE[] SEC("license") = "GPL";
        SEC("xdp") int drops(struct xdp_md *ctx) { return XDP_PASS; }
        """
        assert bpf.load(code=code).programs.drops.run(bytes(64)).retval == XDP_DROP

    def test_the_kernel_tells_the_build_id_of_its_image(bpf_kernel):
        from pytest_bpfmaps.elf.debug_files import build_id
        from pytest_bpfmaps.elf.reader import open_elf
        from pytest_bpfmaps.vm.guest import kernel_addresses
        from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

        with open_elf(Catalogue().select("6.1")[0].vmlinux) as vmlinux:
            assert kernel_addresses.build_id() == build_id(vmlinux) != ""
'''


@pytest.fixture
def debug(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    """Starts pytest in a terminal that is wide enough for a command."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    monkeypatch.setenv("TERM", "dumb")
    pytester.makepyfile(test_filter=TESTS)
    started: list[Person] = []

    def start(*arguments: str) -> Person:
        started.append(Person([sys.executable, "-m", "pytest", *OPTIONS, *arguments], columns=300))
        return started[-1]

    yield start
    for person in started:
        person.end()
    wait_until(lambda: not qemus_for(pytester.path))


def test_a_person_reads_the_kernels_memory(debug: Starts) -> None:
    installed("gdb")
    person = debug("--bpf-kernel=6.1", f"--basetemp={'a-long-path-' * 10}")  # for a socket
    person.sees(r"bpfmaps: test_filter\.py::test_fails\[6\.1\] failed: AssertionError: the banner is at ")
    banner = person.sees(r"\.\r\n|\n")
    person.sees("in another terminal: ")
    command = shlex.split(person.sees("\r\n"))
    said = person.sees("the test waits; press Enter to go on")
    assert "target remote " in command[-1]
    assert "_text is at 0xffffffff" in said or "vmlinux" in shlex.join(command)
    more = ["-ex", "info registers rip", "-ex", f"x/s {banner}"]
    done = subprocess.run([*command, "-batch", *more], capture_output=True, text=True, check=True)
    assert re.search(r"^rip +0x[0-9a-f]+", done.stdout, re.MULTILINE)
    assert "Linux version 6.1." in done.stdout
    person.type("\n")  # gdb has detached, and the guest goes on
    said = person.sees("the test waits; press Enter to go on")
    shows("debugging.md", "test_drops", f"{said}the test waits; press Enter to go on")
    person.type("\n")
    person.sees("2 failed, 1 passed")
    assert person.process.wait(120) == 1


def test_several_kernels(debug: Starts) -> None:
    person = debug("--bpf-kernel=host,6.1")
    person.sees(
        "--bpf-gdb can't be used here: workers for .* run at the same time, and there is one terminal"
    )
    person.sees("-> choose tests of one kernel: --bpf-kernel=")
    assert person.process.wait(120) == pytest.ExitCode.USAGE_ERROR
