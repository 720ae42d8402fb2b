"""Tests names of functions in programs and libraries, against readelf and the dynamic linker."""

import contextlib
import ctypes
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_bpfmaps.elf.binaries import find_binary, function_names, usdt_names
from pytest_bpfmaps.elf.functions_by_name import Ambiguous, ElfFunctions, elf_functions
from pytest_bpfmaps.elf.ifuncs import NotChosen, chosen_code
from pytest_bpfmaps.elf.reader import ElfError, open_elf

SOURCE = """
__asm__(".symver old_f, f@V1"); __asm__(".symver new_f, f@@V2");
__asm__(".symver old_g, g@V1");
__asm__(".symver old_h, h@V1"); __asm__(".symver new_h, h@V2");
int old_f(void) { return 1; } int new_f(void) { return 2; }
int old_g(void) { return 3; }
int old_h(void) { return 4; } int new_h(void) { return 5; }
static int small(void) { return 6; } static int large(void) { return 7; }
static void *resolve(void) { return large; }
int chosen(void) __attribute__((ifunc("resolve")));
__attribute__((used)) static int twice(void) { return 8; }
int plain(void) { return 9; } int alias(void) __attribute__((alias("plain")));
__attribute__((used)) static void *keep = small;
"""
OTHER = "__attribute__((used)) static int twice(void) { return 10; }"
VERSIONS = "V1 { global: f; g; h; }; V2 { global: f; h; chosen; plain; alias; local: *; } V1;"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Makes a library: its functions have versions, one is an IFUNC, two static ones share a name."""
    folder = tmp_path_factory.mktemp("versions")
    for name, text in {"one.c": SOURCE, "two.c": OTHER, "map": VERSIONS}.items():
        (folder / name).write_text(text)
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wl,--version-script=map", "-o", "libv.so", "one.c", "two.c"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "libv.so"


def by_readelf(path):
    """Returns address and kind of each function by its name with version, as readelf prints them."""
    text = subprocess.run(
        ["readelf", "-W", "--dyn-syms", path], check=True, capture_output=True, text=True
    ).stdout
    line = re.compile(r"^ *\d+: (\w+) +\w+ (FUNC|IFUNC) +\w+ +\w+ +\d+ (\S+)", re.MULTILINE)
    return {name: (int(at, 16), kind) for at, kind, name in line.findall(text)}


def test_each_version_of_each_function_of_the_c_library():
    libc = find_binary("libc")
    functions = elf_functions(libc)
    known = by_readelf(libc)
    assert len(known) > 1000
    for name, (address, kind) in known.items():
        found = functions.find(name)
        assert (found.address, found.is_ifunc) == (address, kind == "IFUNC"), name
        if "@@" in name:
            assert functions.find(name.partition("@")[0]).address == address, name


def test_a_name_means_its_default_version(library):
    functions, known = elf_functions(library), by_readelf(library)
    assert functions.find("f").address == known["f@@V2"][0] != known["f@V1"][0]
    assert functions.find("f@V1").address == functions.find("old_f").address == known["f@V1"][0]
    assert functions.find("f@@V1") is None
    assert functions.find("f@V3") is None
    assert functions.find("g").address == known["g@V1"][0], "there is no other"
    with pytest.raises(Ambiguous, match="h@V1, h@V2"):
        functions.find("h")
    with pytest.raises(Ambiguous) as two:
        functions.find("twice")
    assert {f.source for f in two.value.functions} == {"one.c", "two.c"}


def test_a_pattern_means_default_versions_and_each_place_once(library):
    functions = elf_functions(library)
    assert [str(f) for f in functions.matching("[f]")] == ["f@@V2"]
    assert [str(f) for f in functions.matching("f@*")] == ["f@@V2", "f@V1"]
    assert len(functions.matching("[pa]l*")) == 1, "plain and alias are one function"


def test_functions_of_a_stripped_library(library, tmp_path):
    stripped = tmp_path / "stripped.so"
    subprocess.run(["strip", "-o", stripped, library], check=True)
    assert elf_functions(stripped).find("f").address == elf_functions(library).find("f").address
    assert "twice" not in function_names(stripped)


def test_places_in_a_library_with_addresses_of_its_own(library, tmp_path):
    moved = tmp_path / "moved.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wl,-Ttext-segment=0x7000000", "-o", moved, "two.c", "one.c"]
    subprocess.run([*command, "-Wl,--version-script=map"], cwd=library.parent, check=True)
    functions = elf_functions(moved)
    address = functions.find("plain").address
    assert address > 0x7000000
    code = moved.read_bytes()[functions.offset(address) :][:6]  # mov $9, %eax; ret
    other = elf_functions(library)
    assert code == library.read_bytes()[other.offset(other.find("plain").address) :][:6]


def test_what_this_process_uses_for_an_ifunc(library):
    functions = elf_functions(library)
    with pytest.raises(NotChosen, match="no process here has"):
        chosen_code(library, functions.find("chosen"), None)
    assert ctypes.CDLL(str(library)).chosen() == 7
    wanted = (library, functions.offset(functions.find("large").address))
    assert chosen_code(library, functions.find("chosen"), None) == wanted


def test_what_the_c_library_uses_for_memcpy_is_the_same_everywhere():
    libc = find_binary("libc")
    memcpy = elf_functions(libc).find("memcpy")
    assert memcpy.is_ifunc
    address = ctypes.cast(ctypes.CDLL(None).memcpy, ctypes.c_void_p).value
    line = next(
        m
        for m in Path("/proc/self/maps").read_text().splitlines()
        if int(m.split("-")[0], 16) <= address < int(m.split("-")[1].split()[0], 16)
    )
    offset = address - int(line.split("-")[0], 16) + int(line.split()[2], 16)
    assert chosen_code(libc, memcpy, None) == (libc, offset)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdin.write(b"x\n")
        other.stdin.flush()
        assert other.stdout.readline() == b"x\n", "it runs, so it has its libraries"
        assert chosen_code(libc, memcpy, other.pid) == (libc, offset)
    with pytest.raises(NotChosen, match="there is no process"):
        chosen_code(libc, memcpy, other.pid)


def test_code_of_no_file_is_no_place():
    libc = find_binary("libc")
    function = elf_functions(libc).find("time")
    if not function.is_ifunc:
        pytest.skip("time is no IFUNC of this C library")
    with pytest.raises(NotChosen, match="in no file"):
        chosen_code(libc, function, None)


def test_what_is_wrong_with_a_file_is_said(tmp_path, library):
    whole = library.read_bytes()
    for text, damaged in {
        "is empty": b"",
        "is no ELF file": b"#!/bin/sh\n",
        "is cut off: it has 4000 bytes": whole[:4000],
    }.items():
        (tmp_path / "file").write_bytes(damaged)
        with pytest.raises(ElfError, match=text):
            ElfFunctions(tmp_path / "file")
        assert function_names(tmp_path / "file") == set()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(library, tmp_path_factory, data):
    whole = bytearray(library.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    path = tmp_path_factory.getbasetemp() / "damaged.so"
    path.write_bytes(whole[:length])
    for read in (ElfFunctions, usdt_names, by_address):
        with contextlib.suppress(ElfError):
            read(path)


def by_address(path):
    with open_elf(path) as elf:
        return [s.name for s in elf.iter_sections()]


def test_names_that_others_end_with_are_found(tmp_path):
    """A linker stores ``readline`` as the end of ``my_readline``. bash has such a name."""
    names = ("my_readline", "readline", "line", "readline_all")
    (tmp_path / "a.c").write_text("".join(f"int {name}(void) {{ return 1; }}\n" for name in names))
    subprocess.run(["cc", "-shared", "-O2", "-o", "liba.so", "a.c"], cwd=tmp_path, check=True)
    assert b"\0readline\0" not in (tmp_path / "liba.so").read_bytes()
    found = elf_functions(tmp_path / "liba.so")
    assert "'readline'" in found.closest("readlin")
    assert found.starting("readline") == ["readline", "readline_all"]
    assert set(found.having("line")) == set(names)


def test_each_name_of_the_c_library_is_found_by_its_start():
    libc = find_binary("libc")
    known = {name.partition("@")[0] for name in by_readelf(libc)}
    found = elf_functions(libc)
    for start in ("mem", "str", "pthread_", "get"):
        assert {n for n in known if n.startswith(start)} <= set(found.starting(start))
