"""Tests that a uprobe finds the function that a process calls by a name: versions, IFUNCs, kinds of programs.

The kernel counts the calls. This test makes each library and program, so nobody else calls it.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps import AttachError
from pytest_bpfmaps.elf.binaries import function_names

pytestmark = pytest.mark.bpf_requires("uprobe/x")

COUNT = """
__u64 runs;
SEC("SECTION") int count(void *ctx) { __sync_fetch_and_add(&runs, 1); return 0; }
"""
LIBRARY = """
__asm__(".symver old_f, f@V1"); __asm__(".symver new_f, f@@V2");
__asm__(".symver old_h, h@V1"); __asm__(".symver new_h, h@V2");
int old_f(void) { return 1; } int new_f(void) { return 2; }
int old_h(void) { return 4; } int new_h(void) { return 5; }
static int small(void) { return 6; } static int large(void) { return 7; }
static void *resolve(void) { return large; }
int chosen(void) __attribute__((ifunc("resolve")));
int keep(void) { return small(); } int same(void) __attribute__((alias("keep")));
"""
VERSIONS = "V1 { global: f; h; }; V2 { global: f; h; chosen; keep; same; local: *; } V1;"
PROGRAM = """
#include <unistd.h>
static int small(void) { return 6; }
static int large(void) { return 7; }
static void *resolve(void) { return large; }
int chosen(void) __attribute__((ifunc("resolve")));
__attribute__((noinline, noclone)) int work(int i) { __asm__ volatile("" ::: "memory"); return i; }
__attribute__((used)) static void *keep = small;
int main(void)
{
    char go;
    if (write(1, "r", 1) != 1)
        return 1;
    while (read(0, &go, 1) == 1) {
        work(go); work(go);
        chosen(); chosen(); chosen();
        if (write(1, "d", 1) != 1)
            return 1;
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("names")
    for name, text in {"lib.c": LIBRARY, "map": VERSIONS, "program.c": PROGRAM}.items():
        (made / name).write_text(text)
    return made


@pytest.fixture(scope="module")
def library(folder):
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wl,--version-script=map", "-o", "libnames.so", "lib.c"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "libnames.so"


@pytest.fixture
def counter(load_code):
    def load(section="uprobe"):
        return load_code(COUNT.replace("SECTION", section))

    return load


def counts(obj, act, times=3, **target):
    """Returns how often the program runs while `act` is called that many times."""
    before = obj.globals.runs
    with obj.programs.count.attach(**target):
        for _ in range(times):
            act()
    return obj.globals.runs - before


def function(library, name, version):
    """Returns a function of a library by its version, from the dynamic linker."""
    dlvsym = ctypes.CDLL(None).dlvsym
    dlvsym.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(ctypes.CDLL(str(library))._handle)
    return ctypes.CFUNCTYPE(ctypes.c_int)(dlvsym(handle, name.encode(), version.encode()))


def test_the_default_version_is_meant(counter, library):
    obj = counter()
    old, new = function(library, "f", "V1"), function(library, "f", "V2")
    assert (old(), new()) == (1, 2)
    assert counts(obj, new, binary=library, function="f") == 3
    assert counts(obj, old, binary=library, function="f") == 0
    assert counts(obj, old, binary=library, function="f@V1") == 3
    assert counts(obj, new, binary=library, function="f@V1") == 0
    assert counts(obj, new, binary=library, function="f@@V2") == 3


def test_the_version_in_a_section(counter, library):
    assert counts(counter(f"uprobe/{library}:f@V1"), function(library, "f", "V1")) == 3
    assert counts(counter(f"uretprobe/{library}:f@@V2"), function(library, "f", "V2")) == 3


def test_a_name_without_a_default_version_asks_for_one(counter, library):
    obj = counter()
    with pytest.raises(AttachError, match=r"has h@V1, h@V2, none of them .*\n.*function='h@V1'"):
        obj.programs.count.attach(binary=library, function="h")
    assert counts(obj, function(library, "h", "V1"), binary=library, function="h@V1") == 3
    with pytest.raises(AttachError, match=r"no function 'f@V3'\n.*there are: f@@V2, f@V1"):
        obj.programs.count.attach(binary=library, function="f@V3")


def test_an_ifunc_is_followed(counter, library):
    chosen = ctypes.CDLL(str(library)).chosen
    assert counts(counter(), chosen, binary=library, function="chosen") == 3
    assert counts(counter("uretprobe"), chosen, binary=library, function="chosen", pid=os.getpid()) == 3


def test_the_c_librarys_own(counter):
    libc, mine = ctypes.CDLL(None), {"binary": "libc", "pid": os.getpid()}
    text, copy = ctypes.create_string_buffer(b"abc"), ctypes.create_string_buffer(4)
    obj = counter()
    assert counts(obj, lambda: libc.memcpy(copy, text, 4), **mine, function="memcpy") >= 3
    path = ctypes.create_string_buffer(4096)
    assert counts(obj, lambda: libc.realpath(b"/", path), **mine, function="realpath") == 3
    assert counts(obj, lambda: libc.realpath(b"/", path), **mine, function="realpath@GLIBC_2.2.5") == 0


@pytest.mark.bpf_requires("uprobe.multi/x")
def test_many_with_versions(counter, library):
    obj = counter("uprobe.multi")
    old, new = function(library, "f", "V1"), function(library, "f", "V2")
    chosen, keep = (getattr(ctypes.CDLL(str(library)), name) for name in ("chosen", "keep"))
    for act, pattern, expected in [
        (new, "[f]", 3),
        (old, "[f]", 0),
        (old, "f@V?", 3),
        (new, "f@*", 3),
        (new, "f", 3),
        (old, ["f@V1", "h@V1"], 3),
        (chosen, "chos*", 3),
        (chosen, ["chosen", "f"], 3),
        (keep, "[ks]*e", 3),
    ]:
        assert counts(obj, act, binary=library, functions=pattern) == expected, pattern
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        said = r"all functions that fit are IFUNCs whose code is not known: chosen@@V2: .*has not mapped"
        with pytest.raises(AttachError, match=said):
            obj.programs.count.attach(binary=library, functions="chos*", pid=other.pid)


@pytest.mark.parametrize(
    "flags",
    [["-pie"], ["-no-pie"], ["-static"], ["-static-pie"], ["-pie", "-s", "-rdynamic"]],
    ids=" ".join,
)
def test_kinds_of_programs(counter, folder, flags):
    program = folder / "_".join(flags)
    subprocess.run(["cc", "-O1", *flags, "-o", program, "program.c"], cwd=folder, check=True)
    obj = counter()
    with pytest.raises(AttachError, match=r"'chosen' is an IFUNC: .*no process here has"):
        obj.programs.count.attach(binary=program, function="chosen")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as running:
        assert running.stdout.read(1) == b"r"

        def act():
            running.stdin.write(b"x")
            assert running.stdout.read(1) == b"d"

        assert counts(obj, act, binary=program, function="work") == 6
        assert counts(obj, act, binary=program, function="work", pid=running.pid) == 6
        assert counts(obj, act, binary=program, function="chosen", pid=running.pid) == 9
        assert counts(obj, act, binary=program, function="chosen") == 9
        assert counts(obj, act, binary=f"/proc/{running.pid}/exe", function="work") == 6
        program.unlink()
        assert counts(obj, act, binary=f"/proc/{running.pid}/exe", function="work") == 6


def test_a_stripped_program_has_no_names(counter, folder):
    program = folder / "stripped"
    subprocess.run(["cc", "-O1", "-static", "-s", "-o", program, "program.c"], cwd=folder, check=True)
    with pytest.raises(AttachError, match=r"stripped has no symbols\n.*offset="):
        counter().programs.count.attach(binary=program, function="work")


def test_this_process_by_the_usual_link(counter):
    # a stripped interpreter without a library does not export main, but the first function that main calls
    exported = function_names(Path(sys.executable).resolve())  # in a guest the link is in memory
    obj = counter(f"uprobe//proc/self/exe:{'main' if 'main' in exported else 'Py_BytesMain'}")
    with obj.attach():
        subprocess.run([sys.executable, "-S", "-c", ""], check=True)
        assert obj.globals.runs >= 1  # other users of this machine may start it, too


def test_what_is_no_program(counter, folder, tmp_path, library):
    attach = counter().programs.count.attach
    subprocess.run(["cc", "-c", "-o", tmp_path / "lib.o", folder / "lib.c"], check=True)
    (tmp_path / "cut").write_bytes(library.read_bytes()[:5000])
    (tmp_path / "script").write_text("#!/bin/sh\n")
    for name, text in {
        "lib.o": "is an object that is not linked yet",
        "cut": r"is cut off: it has 5000 bytes",
        "script": r"is no ELF file",
    }.items():
        with pytest.raises(AttachError, match=text):
            attach(binary=tmp_path / name, function="f")


LOCKED = """
#ifdef __x86_64__
static int calls __attribute__((used));
__asm__(".globl locked; .type locked, @function; locked: lock incl calls(%rip); mov $7, %eax; ret; "
        ".size locked, . - locked");
int lock_first(void) { return 1; } int lock_last(void) { return 2; }
#endif
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="machine code of x86-64")
@pytest.mark.parametrize(
    "section", ["uprobe", pytest.param("uprobe.multi", marks=pytest.mark.bpf_requires("uprobe.multi/x"))]
)
def test_an_instruction_that_cannot_be_probed(counter, folder, section):
    """The kernel looks at the instruction only when a process has mapped it; here none has."""
    (folder / "locked.c").write_text(LOCKED)
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", f"lib{section}.so", "locked.c"]
    subprocess.run(command, cwd=folder, check=True)
    library = folder / f"lib{section}.so"
    obj = counter(section)
    function = {"function": "locked"} if section == "uprobe" else {"functions": "lock*"}
    with pytest.raises(AttachError, match="the kernel puts no uprobe") as error:
        obj.programs.count.attach(binary=library, **function)
    if section == "uprobe":
        assert "its code: f0 ff 05 " in str(error.value)
        assert "attach(…, offset=N)" in error.value.fix
        with obj.programs.count.attach(binary=library, function="locked", offset=7):
            assert ctypes.CDLL(str(library)).locked() == 7
        assert obj.globals.runs == 1
    else:
        assert ", where 'locked' begins" in str(error.value)
        assert "leave out 'locked'" in error.value.fix
        with obj.programs.count.attach(binary=library, functions=["lock_first", "lock_last"]):
            assert ctypes.CDLL(str(library)).lock_last() == 2
        assert obj.globals.runs == 1
