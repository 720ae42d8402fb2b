"""Tests names for addresses, from kallsyms, ELF symbol tables and mapped files, against `nm`."""

import ctypes
import errno
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps import UnsupportedError
from pytest_bpfmaps.elf.functions_by_address import elf_symbols
from pytest_bpfmaps.kernel.kallsyms import KernelSymbols
from pytest_bpfmaps.kernel.process_symbols import ProcessSymbols

KALLSYMS = """\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 t local_first
ffffffff81000010 t __second
ffffffff81000010 T second
ffffffff81000010 W weak_second
ffffffff81000020 T third
ffffffff81000040 T _etext
ffffffff82000000 D some_data
ffffffffc0000000 t late_function\t[second_module]
ffffffffa0000000 t module_function\t[first_module]
ffffffffa0000100 t bpf_prog_0123456789abcdef_trace\t[bpf]
"""


@pytest.fixture
def symbols(tmp_path):
    """Returns the symbols of a small kernel."""
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    return KernelSymbols(str(tmp_path / "kallsyms"))


@pytest.mark.parametrize(
    ("address", "names", "offset", "file"),
    [
        (0xFFFFFFFF81000010, ("second", "__second", "weak_second"), 0, "vmlinux"),
        (0xFFFFFFFF8100001F, ("second", "__second", "weak_second"), 15, "vmlinux"),
        (0xFFFFFFFF81000008, ("_stext", "local_first"), 8, "vmlinux"),
        (0xFFFFFFFF81000021, ("third",), 1, "vmlinux"),
        (0xFFFFFFFFA0000001, ("module_function",), 1, "first_module"),
        (0xFFFFFFFFA0000123, ("bpf_prog_0123456789abcdef_trace",), 0x23, "bpf"),
        (0xFFFFFFFFC0000000, ("late_function",), 0, "second_module"),
    ],
)
def test_kernel_addresses(symbols, address, names, offset, file):
    (found,) = symbols.find([address])
    assert (set(found.names), found.names[0]) == (set(names), names[0])
    assert (address - found.start, found.file) == (offset, file)


def test_addresses_of_no_function(symbols):
    assert symbols.find([0, 1, 0xFFFFFFFF80000000, 0xFFFFFFFF82000001, 0xFFFFFFFFC0200000]) == [None] * 5


def test_what_comes_and_goes_is_read_again(tmp_path):
    programs = [17]
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    symbols = KernelSymbols(str(tmp_path / "kallsyms"), lambda: tuple(programs))
    assert symbols.find([0xFFFFFFFFA0000100])[0].names == ("bpf_prog_0123456789abcdef_trace",)
    (tmp_path / "kallsyms").write_text(KALLSYMS.replace("0123456789abcdef", "fedcba9876543210"))
    programs[0] = 18
    assert symbols.find([0xFFFFFFFFA0000100])[0].names == ("bpf_prog_fedcba9876543210_trace",)


def test_what_nobody_announces_is_read_when_it_is_asked_for(symbols, tmp_path):
    """ftrace's trampolines are an example. Other symbols are not read again for each address."""
    trampoline = 0xFFFFFFFFA0300000
    assert symbols.find([trampoline, 0xFFFFFFFFA0000000])[0] is None
    old = symbols.text
    assert symbols.find([trampoline, 0xFFFFFFFFA0000001])[1].names == ("module_function",)
    assert symbols.text is old
    (tmp_path / "kallsyms").write_text(
        KALLSYMS + f"{trampoline + 4096:x} t ftrace_trampoline\t[__builtin__ftrace]\n"
    )
    assert symbols.find([trampoline + 4099])[0].names == ("ftrace_trampoline",)


def test_hidden_addresses(tmp_path):
    (tmp_path / "kallsyms").write_text("0000000000000000 T _stext\n0000000000000000 t other\n")
    with pytest.raises(UnsupportedError, match=r"(?s)hides them .*kptr_restrict is .*CAP_SYSLOG") as caught:
        KernelSymbols(str(tmp_path / "kallsyms")).find([1])
    assert caught.value.errno == errno.EPERM


def libc_path():
    (found,) = {m.path for m in ProcessSymbols().mappings if "/libc.so" in m.path or "/libc-" in m.path}
    return found


def test_a_library_against_nm():
    path = libc_path()
    symbols = elf_symbols(path)
    lines = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True)
    functions = [line.split() for line in lines.stdout.splitlines()]
    functions = [(int(a, 16), n.partition("@")[0]) for a, kind, n in functions if kind in "TWi"]
    assert len(functions) > 1000
    (load,) = symbols._loads
    for vaddr, name in functions:
        offset = vaddr - load[2] + load[0]
        names, start = symbols.find(offset)
        assert (start, name in names) == (offset, True)
    assert symbols.find(0) is None


def test_the_build_id_against_readelf():
    path = libc_path()
    printed = subprocess.run(["readelf", "-n", path], capture_output=True, text=True, check=True).stdout
    assert f"Build ID: {elf_symbols(path).build_id}\n" in printed


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(60)])
def test_files_without_symbols(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert elf_symbols(str(path)) is None
    assert elf_symbols(str(tmp_path / "nothing")) is None


def test_a_function_of_this_process():
    address = ctypes.cast(ctypes.CDLL(None).getppid, ctypes.c_void_p).value
    found = ProcessSymbols().find(address + 1)
    assert (found.names[0], found.start) == ("getppid", address)
    assert ProcessSymbols().find(8) is None


def test_a_process_that_never_was():
    with pytest.raises(UnsupportedError, match="process 4194304: it has ended") as caught:
        ProcessSymbols(4194304)  # one more than the largest pid_max
    assert caught.value.errno == errno.ESRCH


LIBRARY = """
static __attribute__((noinline)) int hidden(int x) { return x * 3 + 1; }
int shown(int x) { return hidden(x) + 2; }
int another(int x) { return hidden(x) * 5; }
"""


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


@pytest.fixture
def debugged(tmp_path, monkeypatch):
    """Makes a stripped library and a file with its symbols. Yields them with the addresses by `nm`."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: apt-get install gcc")
    monkeypatch.setattr("pytest_bpfmaps.elf.debug_files._DEBUG", tmp_path / "debug")
    source, library, symbols = (tmp_path / n for n in ("x.c", "x.so", "x.so.debug"))
    source.write_text(LIBRARY)
    run("gcc", "-O1", "-shared", "-fPIC", "-Wl,--build-id", "-o", library, source)
    functions = {
        n: int(a, 16) for a, k, n in map(str.split, run("nm", "--defined-only", library).splitlines())
    }
    run("objcopy", "--only-keep-debug", library, symbols)
    run("strip", "--strip-all", library)
    return library, symbols, functions


def place_nowhere(library, symbols):
    symbols.unlink()


def place_by_build_id(library, symbols):
    printed = run("readelf", "-n", library)
    build_id = printed.partition("Build ID: ")[2].split()[0]
    target = library.parent / "debug" / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
    target.parent.mkdir(parents=True)
    symbols.rename(target)


def place_beside(library, symbols):
    run("objcopy", f"--add-gnu-debuglink={symbols}", library)
    run("objcopy", "--remove-section=.note.gnu.build-id", library)


def place_in_subfolder(library, symbols):
    place_beside(library, symbols)
    (library.parent / ".debug").mkdir()
    symbols.rename(library.parent / ".debug" / symbols.name)


def place_in_the_debug_tree(library, symbols):
    place_beside(library, symbols)
    target = Path(f"{library.parent}/debug{library.parent}") / symbols.name
    target.parent.mkdir(parents=True)
    symbols.rename(target)


def place_inside(library, symbols):
    run("objcopy", "--only-keep-debug", "--remove-section=.note.gnu.build-id", symbols)
    symbols.write_bytes(lzma.compress(symbols.read_bytes()))
    run("objcopy", f"--add-section=.gnu_debugdata={symbols}", library)
    symbols.unlink()


def place_another(library, symbols):
    """The file has the right name, but is from another build. The checksum shows it."""
    place_beside(library, symbols)
    symbols.write_bytes(symbols.read_bytes() + b"\0")


@pytest.mark.parametrize(
    ("place", "found"),
    [
        (place_nowhere, False),
        (place_by_build_id, True),
        (place_beside, True),
        (place_in_subfolder, True),
        (place_in_the_debug_tree, True),
        (place_inside, True),
        (place_another, False),
    ],
)
def test_symbols_in_files_of_their_own(debugged, place, found):
    library, symbols, functions = debugged
    place(library, symbols)
    of_library = elf_symbols(str(library))
    ((offset, _, vaddr),) = of_library._loads
    for name in ("shown", "another"):
        assert of_library.find(functions[name] - vaddr + offset)[0] == (name,)
    hidden = of_library.find(functions["hidden"] + 1 - vaddr + offset)
    assert hidden == ((("hidden",), functions["hidden"] - vaddr + offset) if found else None)


def test_a_function_without_a_symbol_has_its_file_and_offset(debugged):
    library, symbols, functions = debugged
    place_nowhere(library, symbols)
    loaded = ctypes.CDLL(str(library))
    begin = ctypes.cast(loaded.shown, ctypes.c_void_p).value - functions["shown"]
    found = ProcessSymbols().find(begin + functions["hidden"] + 2)
    ((offset, _, vaddr),) = elf_symbols(str(library))._loads
    assert (found.names, found.file) == ((), str(library))
    assert begin + functions["hidden"] + 2 - found.start == functions["hidden"] + 2 - vaddr + offset


def test_the_vdso_is_a_file():
    mapping = next((m for m in ProcessSymbols().mappings if m.path == "[vdso]"), None)
    if mapping is None:
        pytest.skip("this process has no vdso")
    found = ProcessSymbols().find(mapping.start + 8)
    assert (found.names, found.file, found.start) == ((), "[vdso]", mapping.start)


TRAMPOLINES = """
import sys
def quite_special_name():
    print("ready", flush=True)
    sys.stdin.read()
quite_special_name()
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="python -X perf came with Python 3.12")
def test_python_functions_have_names_with_x_perf():
    command = [sys.executable, "-X", "perf", "-c", TRAMPOLINES]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        perf_map = Path(f"/tmp/perf-{child.pid}.map")
        line = next(x for x in perf_map.read_text().splitlines() if "quite_special_name" in x)
        found = ProcessSymbols(child).find(int(line.split()[0], 16))
        child.stdin.close()
    os.unlink(perf_map)
    assert "quite_special_name" in found.names[0]
