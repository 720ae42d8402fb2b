"""Tests ``--bpf-artifacts``: the files of failing tests, on the host and in a guest."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_bpfmaps import paths

CACHE = paths.cache_dir()  # read before pytester changes HOME
libc = ctypes.CDLL(None, use_errno=True)

HEAD = '''
CODE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
enum colour { RED, GREEN };
struct fact { __u32 number; char name[8]; enum colour colour; __u8 raw[4]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8);
         __type(key, __u32); __type(value, struct fact); } facts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 20000);
         __type(key, __u32); __type(value, __u64); } many SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
SEC("xdp") int drop(struct xdp_md *ctx)
{
    struct fact fact = {7, "seven", GREEN, {1, 2, 3, 255}};
    __u32 key = 3;
    bpf_map_update_elem(&facts, &key, &fact, 0);
    return XDP_DROP;
}
"""
'''


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))


def test_the_files_of_failing_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it=HEAD
        + """
import os

def test_fails(bpf):
    drop = bpf.load(code=CODE).programs.drop
    if os.path.exists("/dev/kmsg"):  # this must not make it: a root may lack it
        with open("/dev/kmsg", "w") as log:
            log.write("<12>a line of the log\\n")
    packet = bytearray(range(64))
    verdict = drop.run(packet).retval
    packet[:] = bytes(64)
    assert verdict == 2

def test_refused(bpf):
    bpf.load(code=CODE.replace("XDP_DROP", "*(int *)(long)ctx->data"))

def test_panics(bpf_kernel):
    if bpf_kernel.release.startswith("6.1."):
        open("/proc/sysrq-trigger", "w").write("c")

def test_passes(bpf):
    bpf.load(code=CODE)
"""
    )
    result = pytester.runpytest_subprocess(
        "--bpf-kernel=host,6.1", "--bpf-vm-timeout=120", "--bpf-artifacts=kept"
    )
    result.assert_outcomes(failed=5, passed=3)
    kept = pytester.path / "kept"
    result.stdout.fnmatch_lines([f"bpfmaps: artifacts of 5 tests that failed are in {kept}"])
    assert not [*kept.rglob("*.error.txt")]
    for kernel in ("host", "6.1"):
        folder = kept / kernel / "test_it.py"
        fails = folder / f"test_fails[[]{kernel}]".replace("[[]", "[")
        found = {str(path.relative_to(fails)) for path in fails.rglob("*") if path.is_file()}
        assert found - {"kernel.log"} == {  # the host may log something itself
            *("test.json", "report.txt", "verifier/drop.log", "objects/inline.bpf.o"),
            *("maps/facts.json", "maps/many.json", "maps/ring.json"),
            *("packets/drop-in.pcap", "packets/drop-out.pcap"),
        }
        check_maps(fails / "maps")
        check_object(fails / "objects/inline.bpf.o")
        assert capture(fails / "packets/drop-in.pcap") == [bytes(range(64))]
        assert "assert XDP_DROP == 2" in (fails / "report.txt").read_text()
        facts = json.loads((fails / "test.json").read_text())
        assert facts["test"] == f"test_it.py::test_fails[{kernel}]"
        assert facts["release"].startswith("6.1.") == (kernel == "6.1")
        refused = folder / f"test_refused[{kernel}]"
        assert "invalid access to packet" in (refused / "verifier/refused.log").read_text()
        check_object(refused / "objects/inline.bpf.o")
    panics = kept / "6.1/test_it.py/test_panics[6.1]"
    assert "Kernel panic - not syncing: sysrq triggered crash" in (panics / "console.txt").read_text()
    assert not [*kept.rglob("*test_passes*")]


def check_maps(folder: Path) -> None:
    facts = json.loads((folder / "facts.json").read_text())
    fact = {"number": 7, "name": "seven", "colour": "GREEN", "raw": "010203ff"}
    assert facts["elements"] == [{"key": 3, "value": fact}]
    assert facts["complete"]
    many = json.loads((folder / "many.json").read_text())
    assert [len(many["elements"]), many["complete"], many["max_entries"]] == [10_000, False, 20_000]
    assert json.loads((folder / "ring.json").read_text())["elements"] is None


def check_object(path: Path) -> None:
    sections = subprocess.run(["readelf", "-S", path], capture_output=True, text=True, check=True).stdout
    assert " xdp " in sections


def capture(path: Path) -> list[bytes]:
    from scapy.layers import l2  # noqa: F401 - Ethernet
    from scapy.utils import rdpcap

    return [bytes(packet) for packet in rdpcap(str(path))]


@pytest.fixture
def small_disk(pytester: pytest.Pytester) -> Iterator[Path]:
    """A file system with room for two pages."""
    folder = pytester.mkdir("small")
    if libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, b"size=8192"):
        pytest.skip("only root can mount a small disk")
    yield folder
    libc.umount2(bytes(folder), 2)


def test_a_full_disk(pytester: pytest.Pytester, small_disk: Path) -> None:
    pytester.makepyfile(
        HEAD
        + "def test_fails(bpf):\n    bpf.load(code=CODE)\n    assert 0\n"
        + "def test_passes(bpf): pass\n"
    )
    result = pytester.runpytest_subprocess("--bpf-kernel=host", f"--bpf-artifacts={small_disk}")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            f"bpfmaps: not all artifacts were written: No space left on device: {small_disk}*",
            "  -> make room, or name another folder: --bpf-artifacts=DIR",
            "FAILED *::test_fails[[]host] - *",
        ]
    )


def test_a_path_that_is_a_file(pytester: pytest.Pytester) -> None:
    pytester.makefile(".txt", taken="")
    result = pytester.runpytest_subprocess("--bpf-artifacts=taken.txt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"ERROR: cannot keep artifacts in {pytester.path}/taken.txt: it is no folder", "  -> name another*"]
    )


def test_a_name_that_no_upload_takes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("text", ["a:b?", "a:b*", "../../up"])
        def test_fails(bpf, text): assert 0
        """
    )
    for number in range(2):  # the second run replaces the files of the first one
        pytester.runpytest_subprocess("--bpf-kernel=host", "--bpf-artifacts=kept").assert_outcomes(failed=3)
        folders = [path.parent for path in (pytester.path / "kept").rglob("test.json")]
        assert len(folders) == 3
        assert not {c for path in folders for c in path.name} & set(':"<>|*?\\/')
        if number == 0:
            (folders[0] / "old").touch()
    assert not [*(pytester.path / "kept").rglob("old")]
    assert os.listdir(pytester.path / "kept") == ["host"]
