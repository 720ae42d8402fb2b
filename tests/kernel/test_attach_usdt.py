"""Tests USDT in libraries and programs of all kinds, by the argument that the program gets."""

import ctypes
import os
import struct
import subprocess

import pytest

from pytest_bpfmaps import AttachError

pytestmark = pytest.mark.bpf_requires("usdt/x")

# <sys/sdt.h> makes the same; a semaphore enables the second one
FIRE = r"""
#define NOTE(name, semaphore) \
        "990: nop\n" \
        ".pushsection .note.stapsdt,\"\",\"note\"\n" \
        ".balign 4\n.4byte 992f-991f, 994f-993f, 3\n" \
        "991: .asciz \"stapsdt\"\n992: .balign 4\n" \
        "993: .8byte 990b\n.8byte _.stapsdt.base\n.8byte " semaphore "\n" \
        ".asciz \"bpfmaps\"\n.asciz \"" name "\"\n.asciz \"-8@%0\"\n" \
        "994: .balign 4\n.popsection\n"
__asm__(
        ".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"
        ".weak _.stapsdt.base\n.hidden _.stapsdt.base\n"
        "_.stapsdt.base: .space 1\n.size _.stapsdt.base, 1\n.popsection\n");
__attribute__((visibility("hidden"), section(".probes"))) unsigned short bpfmaps_wanted;
__attribute__((noinline)) void fire(long value)
{
    __asm__ volatile(NOTE("fired", "0") : : "r"(value));
    if (*(volatile unsigned short *)&bpfmaps_wanted)
        __asm__ volatile(NOTE("wanted", "bpfmaps_wanted") : : "r"(value));
}
"""
PROGRAM = (
    FIRE
    + """
#include <unistd.h>
int main(void)
{
    unsigned char value;
    if (write(1, "r", 1) != 1)
        return 1;
    while (read(0, &value, 1) == 1) {
        fire(value);
        if (write(1, "d", 1) != 1)
            return 1;
    }
    return 0;
}
"""
)
CODE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/usdt.bpf.h>
char LICENSE[] SEC("license") = "GPL";
long seen, cookie;
SEC("usdt") int BPF_USDT(fired, long value) { seen = value; cookie = bpf_usdt_cookie(ctx); return 0; }
"""
MOVED = 0x30000000
NAMES = pytest.mark.parametrize("name", ["bpfmaps:fired", "bpfmaps:wanted"])


def build(folder, name, text, *flags):
    (folder / f"{name}.c").write_text(text)
    subprocess.run(["cc", "-O1", *flags, "-o", folder / name, folder / f"{name}.c"], check=True)
    return folder / name


def prelink(path):
    """Makes a file like prelink(8) does: all addresses are higher, except those in the notes.

    The file is already linked for the higher addresses.
    """
    data = bytearray(path.read_bytes())
    note = struct.pack("=I8s", 3, b"stapsdt\0")
    at = data.find(note)
    while at >= 0:
        place, base, semaphore = struct.unpack_from("=QQQ", data, at + len(note))
        assert base > MOVED
        moved = (place - MOVED, base - MOVED, semaphore and semaphore - MOVED)
        struct.pack_into("=QQQ", data, at + len(note), *moved)
        at = data.find(note, at + len(note))
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("usdt"), "libfire.so", FIRE, "-shared", "-fPIC")


@pytest.fixture(scope="module")
def prelinked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prelinked")
    return prelink(build(folder, "libmoved.so", FIRE, "-shared", "-fPIC", f"-Wl,-Ttext-segment={MOVED:#x}"))


def test_its_argument_and_cookie_arrive(bpf, library):
    obj = bpf.load(code=CODE)
    fire = ctypes.CDLL(str(library)).fire
    with obj.programs.fired.attach(binary=library, usdt="bpfmaps:fired", pid=os.getpid(), cookie=47):
        fire(7)
    fire(8)
    assert (obj.globals.seen, obj.globals.cookie) == (7, 47)


def test_a_wrong_name_names_the_closest(bpf, library):
    obj = bpf.load(code=CODE)
    with pytest.raises(AttachError, match=r"has no USDT 'bpfmaps:fire'\n(.*\n)*.*'bpfmaps:fired'"):
        obj.programs.fired.attach(binary=library, usdt="bpfmaps:fire")


def test_in_a_prelinked_library(bpf, prelinked):
    obj = bpf.load(code=CODE)
    fire = ctypes.CDLL(str(prelinked)).fire
    with obj.programs.fired.attach(binary=prelinked, usdt="bpfmaps:fired", pid=os.getpid()):
        fire(7)
    fire(8)
    assert obj.globals.seen == 7


def test_a_semaphore_in_a_prelinked_library(bpf, prelinked):
    attach = bpf.load(code=CODE).programs.fired.attach
    with pytest.raises(AttachError, match=r"prelink\(8\) moved it, .*\n(.*\n)*.*prelink --undo"):
        attach(binary=prelinked, usdt="bpfmaps:wanted", pid=os.getpid())


def test_a_library_of_all_processes(bpf, bpf_kernel, library):
    attach = bpf.load(code=CODE).programs.fired.attach
    if bpf_kernel.has("bpf_get_attach_cookie"):
        attach(binary=library, usdt="bpfmaps:fired").close()
        return
    with pytest.raises(AttachError, match=r"no cookies for uprobes.*\n(.*\n)*.*usdt=…, pid=…"):
        attach(binary=library, usdt="bpfmaps:fired")


def test_a_process_that_is_not_there(bpf, library):
    with subprocess.Popen(["true"]) as ended:
        pass
    with pytest.raises(AttachError, match=f"there is no process {ended.pid}"):
        bpf.load(code=CODE).programs.fired.attach(binary=library, usdt="bpfmaps:fired", pid=ended.pid)


def test_a_function_of_a_prelinked_library(load_code, prelinked):
    obj = load_code('long runs; SEC("uprobe") int count(void *ctx) { runs++; return 0; }')
    fire = ctypes.CDLL(str(prelinked)).fire
    with obj.programs.count.attach(binary=prelinked, function="fire"):
        fire(1)
        fire(2)
    fire(3)
    assert obj.globals.runs == 2


@pytest.mark.bpf_requires("uprobe.multi/x")
def test_functions_of_a_prelinked_library(load_code, prelinked):
    obj = load_code('long runs; SEC("uprobe.multi") int count(void *ctx) { runs++; return 0; }')
    fire = ctypes.CDLL(str(prelinked)).fire
    with obj.programs.count.attach(binary=prelinked, functions="fir*"):
        fire(1)
    fire(3)
    assert obj.globals.runs == 1


@NAMES
@pytest.mark.parametrize(
    "flags",
    [["-pie"], ["-pie", "-s"], ["-no-pie", "-s"], ["-static", "-s"], ["-static-pie", "-s"]],
    ids=" ".join,
)
def test_in_programs(bpf, bpf_kernel, tmp_path, flags, name):
    program = build(tmp_path, "program", PROGRAM, *flags)
    obj = bpf.load(code=CODE)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as running:
        assert running.stdout.read(1) == b"r"

        def fire(value):
            running.stdin.write(bytes([value]))
            assert running.stdout.read(1) == b"d"

        with obj.programs.fired.attach(binary=program, usdt=name, pid=running.pid):
            fire(7)
        fire(8)
        assert obj.globals.seen == 7
        anybody = (
            {} if "-no-pie" in flags or bpf_kernel.has("bpf_get_attach_cookie") else {"pid": running.pid}
        )
        with obj.programs.fired.attach(binary=f"/proc/{running.pid}/exe", usdt=name, **anybody):
            fire(9)
        assert obj.globals.seen == 9
