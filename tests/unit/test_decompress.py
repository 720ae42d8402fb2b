"""Tests that modules and payloads are refused when they are damaged, or unpack to far too much."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from installed import installed

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.boot.initramfs import read_module
from pytest_bpfmaps.vm.kernels.decompress import decompress_module


def by_zstd(data: bytes) -> bytes:
    return subprocess.run([installed("zstd"), "-cq"], input=data, capture_output=True, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": by_zstd,
}


@pytest.mark.parametrize("suffix", [*PACKERS, ".ko"])
@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_a_module_is_unpacked(suffix: str, size: int) -> None:
    data = os.urandom(size // 2) + bytes(size - size // 2)
    packed = PACKERS.get(suffix, bytes)(data)
    assert decompress_module(packed, suffix, max(size, 1)) == data


@pytest.mark.parametrize("suffix", PACKERS)
def test_more_than_allowed_is_refused(suffix: str) -> None:
    with pytest.raises(ValueError, match="it unpacks to more than 1000000 bytes"):
        decompress_module(PACKERS[suffix](bytes(50_000_000)), suffix, 1_000_000)


@pytest.mark.parametrize("suffix", PACKERS)
@given(data=st.data())
def test_damage_is_a_value_error_or_nothing(suffix: str, data: st.DataObject) -> None:
    """Nobody reads four bytes of the header. A checksum finds all other damage."""
    content = b"an ELF file, nearly" * 50
    packed = bytearray(PACKERS[suffix](content))
    if data.draw(st.booleans()):
        packed = packed[: data.draw(st.integers(0, len(packed) - 1))]
    else:
        bit = data.draw(st.integers(0, len(packed) * 8 - 1))
        packed[bit // 8] ^= 1 << bit % 8
    try:
        found = decompress_module(bytes(packed), suffix, 1 << 20)
    except ValueError:
        return
    assert found == content or suffix == ".zst"  # zstd's checksum is optional; the kernel's build writes one


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """It runs in a process that may use 800 MB, because the file unpacks to a gigabyte."""
    with gzip.open(tmp_path / "bomb.ko.gz", "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(bytes(16 << 20))
    program = (
        "import sys; from pathlib import Path; from pytest_bpfmaps.vm.boot.initramfs import read_module\n"
        "from pytest_bpfmaps.errors import VmError\n"
        "try: read_module(Path(sys.argv[1]))\n"
        "except VmError as e: print(e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "bomb.ko.gz")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (800 << 20, 800 << 20)),
    )
    assert "it unpacks to more than 268435456 bytes\n  -> fetch the kernel again" in done.stdout, done


def test_a_damaged_module_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.ko.xz").write_bytes(b"nonsense")
    with pytest.raises(VmError, match=r"cannot read module .*a.ko.xz: it is damaged"):
        read_module(tmp_path / "a.ko.xz")
