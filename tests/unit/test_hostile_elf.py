"""Tests ELF files with wrong numbers: each reader raises a clear error, or reads what the file has."""

from __future__ import annotations

import os
import platform
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installed import installed
from kernel_files import BTF, bzimage, vmlinux

from pytest_bpfmaps import BpfError, CompileError, LoadError
from pytest_bpfmaps.btf.dwarf import read_local_types
from pytest_bpfmaps.compiler.legacy_maps import upgraded
from pytest_bpfmaps.compiler.sources import find_source
from pytest_bpfmaps.elf.binaries import usdt_names
from pytest_bpfmaps.elf.editor import Elf
from pytest_bpfmaps.elf.functions_by_address import elf_symbols
from pytest_bpfmaps.elf.functions_by_name import ElfFunctions
from pytest_bpfmaps.elf.reader import ElfError, loaded_size, loader, notes, open_elf
from pytest_bpfmaps.objects.opened import OpenedObject
from pytest_bpfmaps.vm.kernels.kernel_image import (
    has_pvh_entry,
    read_btf,
    read_config,
    read_image,
    unpack_vmlinux,
)

ANY_FILE = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
EDGES = sorted(
    {2**n + d for n in (0, 7, 8, 15, 16, 31, 32, 62, 63, 64) for d in (-1, 0, 1)} - {2**64, 2**64 + 1}
)
SIZES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def changes_of(data):
    """Returns up to four numbers for random places in the header and the tables of sections and segments."""
    places = st.integers(0, 63)
    if data[:4] == b"\x7fELF":
        (segments, sections) = struct.unpack_from("<QQ", data, 32)
        (size, count) = struct.unpack_from("<HH", data, 58)
        places |= st.integers(sections, sections + size * count - 1)
        if segments:
            places |= st.integers(segments, segments + 56 * 4)
    numbers = st.sampled_from(EDGES) | st.integers(0, len(data) + 64) | st.integers(0, 2**64 - 1)
    return st.lists(st.tuples(places, st.sampled_from(sorted(SIZES)), numbers), min_size=1, max_size=4)


def changed(data, changes):
    data = bytearray(data)
    for place, size, number in changes:
        aligned = place - place % size
        if aligned + size <= len(data):
            struct.pack_into("<" + SIZES[size], data, aligned, number & ((1 << 8 * size) - 1))
    return bytes(data)


def built(tmp_path_factory, *command):
    """Returns an ELF file with a few functions, or skips the test."""
    installed(command[0])
    folder = tmp_path_factory.mktemp("built")
    (folder / "x.c").write_text("int a(int x) { return x; } int b(int x) { return a(x) + 1; }\n")
    subprocess.run([*command, "-g", "-o", folder / "x", folder / "x.c"], check=True)
    return (folder / "x").read_bytes()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return built(tmp_path_factory, "gcc", "-O1", "-shared", "-fPIC", "-Wl,--build-id")


@pytest.fixture(scope="module")
def bpf_object(tmp_path_factory):
    return built(tmp_path_factory, "clang", "-O2", "-target", "bpf", "-c")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64")
@ANY_FILE
@given(data=st.data(), image=st.sampled_from([vmlinux(btf=BTF[:64], config=b"CONFIG_BPF=y\n"), bzimage()]))
def test_kernel_images(tmp_path: Path, data: st.DataObject, image: bytes) -> None:
    file, target = tmp_path / "image", tmp_path / "vmlinux"
    file.write_bytes(changed(image, data.draw(changes_of(image))))
    with suppress(BpfError):
        unpack_vmlinux(read_image(file), target)
    for path in (file, target):
        for read in (read_btf, read_config, has_pvh_entry):
            if path.exists():
                with suppress(BpfError):
                    read(path)


def test_a_section_name_at_two_to_the_63(tmp_path):
    """The strings of the sections begin after the end of the file."""
    data = bytearray(vmlinux())
    (table,), (index,) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<H", data, 62)
    struct.pack_into("<Q", data, table + index * 64 + 24, 1 << 63)
    (tmp_path / "vmlinux").write_bytes(data)
    with pytest.raises(BpfError, match="it is damaged: "):
        read_btf(tmp_path / "vmlinux")


def memory_of(work):
    """Kilobytes that a process has at most while it does `work`, and how it ended."""
    child = os.fork()
    if not child:
        with suppress(BpfError, ElfError):
            work()
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    return usage.ru_maxrss, status


def sections_of(data):
    """The places of the section headers."""
    start, (each, count) = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<HH", data, 58)
    return range(start, start + each * count, each)


def test_sections_without_bytes_that_announce_gigabytes(library, tmp_path):
    """Each section in turn. Zeros were made for it, which took that much memory."""
    file = tmp_path / "library.so"
    for header in sections_of(library):
        changed = bytearray(library)
        struct.pack_into("<Q", changed, header + 32, 4 << 30)
        struct.pack_into("<I", changed, header + 4, 8)
        file.write_bytes(changed)
        for read in (elf_symbols, ElfFunctions, usdt_names, read_local_types):
            most, status = memory_of(lambda: read(file))  # noqa: B023 - it is called at once
            assert not status
            assert most < 1 << 20, f"section at {header}: {most} kB"


def test_symbols_beyond_the_end_of_the_file(library, tmp_path):
    symbols = next(at for at in sections_of(library) if struct.unpack_from("<I", library, at + 4)[0] == 2)
    changed = bytearray(library)
    struct.pack_into("<Q", changed, symbols + 32, 4 << 30)
    (file := tmp_path / "library.so").write_bytes(changed)
    with pytest.raises(ElfError, match=r"library\.so is damaged: .*beyond the end of the file"):
        ElfFunctions(file)


def test_libraries(library, tmp_path):
    path = tmp_path / "x.so"

    @ANY_FILE
    @given(changes_of(library))
    def read(changes) -> None:
        data = changed(library, changes)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        symbols = elf_symbols(str(path))
        if symbols is not None:
            for offset in (0, 0x1000, 0x1110, 1 << 63):
                symbols.find(offset)
        with suppress(ElfError):
            functions = ElfFunctions(path)
            functions.find("a")
            functions.find("no_such")
        with suppress(ElfError):
            usdt_names(path)
        with suppress(ValueError), open_elf(path) as elf:
            assert loaded_size(elf) <= len(data)
            loader(elf)
            list(notes(elf))

    read()


def test_objects(bpf_object, tmp_path):
    path = tmp_path / "x.bpf.o"

    @ANY_FILE
    @given(changes_of(bpf_object))
    def read(changes) -> None:
        data = changed(bpf_object, changes)
        path.write_bytes(data)
        with suppress(ValueError):
            elf = Elf(data)
            elf.symbols()
            for section in elf.sections:
                with suppress(ValueError):
                    elf.content(section)
        for call in (lambda: upgraded(data, "x"), lambda: read_local_types(path)):
            with suppress(BpfError):
                call()

    read()


def test_a_file_that_would_fill_the_memory(tmp_path: Path) -> None:
    for name in ("a.bpf.o", "a.bpf.c"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 20 << 30)  # a hole
        with pytest.raises(CompileError, match="it has 20480 MB, and a source or object has at most 256 MB"):
            find_source(name, [tmp_path])
    with pytest.raises(LoadError, match="it has 20480 MB, and a source or object has at most 256 MB"):
        OpenedObject(tmp_path / "a.bpf.o")


def test_a_file_that_cannot_be_read() -> None:
    with pytest.raises(LoadError, match="cannot open /proc/self/mem: it can't be read: Input/output error"):
        OpenedObject(Path("/proc/self/mem"))


@pytest.mark.parametrize(
    ("name", "why"),
    [("folder", "it is no file"), ("/proc/self/mem", "it can't be read: Input/output error")],
)
def test_types_that_cannot_be_read(bpf_object, tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.bpf.o").write_bytes(bpf_object)
    with pytest.raises(LoadError, match=f"cannot read the kernel's types from .*: {why}"):
        OpenedObject(tmp_path / "a.bpf.o", btf=tmp_path / name)
