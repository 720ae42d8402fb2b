"""Tests structs that only local variables have."""

import subprocess

import pytest
from elftools.elf.elffile import ELFFile

from pytest_bpfmaps.btf import Btf, Codecs, Kind
from pytest_bpfmaps.btf.dwarf import local_types, read_local_types
from pytest_bpfmaps.btf.dwarf_index import _walk, top_entries
from pytest_bpfmaps.btf.writer import BtfWriter
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler

CODE = """
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

enum what { OPEN, CLOSE = 7 };
struct inner { __u16 a; char name[8]; };
struct event {
    __u64 time; struct inner inner[2]; enum what what; bool ok; int low:5; unsigned int high:3;
    union { __u32 one; __u8 two[4]; }; double d; struct event *next; int grid[2][3];
};
struct on_stack { int x; };
struct never_used { int y; };
struct behind_two_pointers { int z; };

struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");

static __always_inline int inlined(void)
{
    struct on_stack s = {};
    void *nothing = &s;
    struct behind_two_pointers **far = nothing;
    asm volatile("" :: "r"(nothing), "r"(far));
    return bpf_ringbuf_output(&events, &s, sizeof(s), 0);
}

SEC("xdp") int prog(struct xdp_md *ctx)
{
    struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (!event)
        return inlined();
    event->time = 1;
    bpf_ringbuf_submit(event, 0);
    return 0;
}
"""

SEVERAL = """
enum wide { LARGE = 1LL << 40 } one; enum small { A, B } two;
struct s { struct { int x; } in; enum small e; float f[2][3]; char *text; } three;
static inline int twice(int a) { struct s s = {{a}}; return s.in.x * 2; }
int f(int a, struct s *s, ...) { for (int i = 0; i < a; i++) { long k = i; s->in.x += k; } return twice(a); }
int g(void) { return f(3, &three) + one + two; }
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPFMAPS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return LocalCompiler().compile(CompileRequest(code=CODE))


def test_types_of_local_variables_are_found(path):
    codecs = Codecs(Btf(local_types(path)))
    event = codecs.struct("event")
    value = {
        "time": 5,
        "inner": [{"a": 1, "name": "x"}, {"a": 2, "name": "y"}],
        "what": 7,
        "ok": True,
        "low": -9,
        "high": 6,
        "one": 3,
        "d": 0.5,
        "next": 99,
        "grid": [[1, 2, 3], [4, 5, 6]],
    }
    decoded = event.decode(event.encode(value, "a test"))
    assert decoded == value
    assert decoded.what.name == "CLOSE"
    assert codecs.struct("on_stack").size == 4
    assert codecs.btf.find("never_used") is None
    assert codecs.btf.find("behind_two_pointers") is None


def test_the_compiler_keeps_them_beside_the_object(path):
    assert read_local_types(path) == path.with_suffix(".types").read_bytes() == local_types(path)


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("wide", [(), ("-gdwarf64",)])
def test_the_entries_at_the_top_are_those_of_pyelftools(path, tmp_path, version, wide):
    made = tmp_path / "made.o"
    flags = ["-O2", "-g", f"-gdwarf-{version}", *(wide if version > 3 else ()), "-fno-builtin"]
    (tmp_path / "made.c").write_text(SEVERAL)
    subprocess.run(["clang", *flags, "-c", tmp_path / "made.c", "-o", made], check=True)
    tags = ("DW_TAG_subprogram", "DW_TAG_enumeration_type", "DW_TAG_structure_type")
    for object in (path, made):
        with object.open("rb") as file:
            for unit in ELFFile(file).get_dwarf_info(relocate_dwarf_sections=False).iter_CUs():
                judge = [d.offset for d in unit.get_top_DIE().iter_children() if d.tag in tags]
                assert len(judge) > 1
                if version > 3:  # DWARF 4 and 5 have forms that pyelftools reads for us
                    assert [d.offset for d in _walk(unit, tags)] == judge
                assert [d.offset for d in top_entries(unit, tags)] == judge


def test_an_object_without_debug_information_has_none(tmp_path):
    other = tmp_path / "x.bpf.o"
    other.write_bytes(b"not an object")
    assert local_types(other) is None
    assert read_local_types(other) is None


def test_written_btf_reads_back():
    writer = BtfWriter()
    number = writer.add_int("long", 8, encoding=1)
    array = writer.add_array(number, 3)
    big = writer.add_enum("big", 8, [("HUGE", 2**40), ("MINUS", -1)])
    signed = writer.add_enum("small", 4, [("DOWN", -2), ("UP", 2)])
    pointer = writer.add_reference(Kind.PTR, "", 0)
    btf = Btf(writer.to_bytes())
    codecs = Codecs(btf)
    assert codecs.get(array).decode(bytes(24)) == [0, 0, 0]
    assert btf.type(big).enumerators() == [("HUGE", 2**40), ("MINUS", -1)]
    assert btf.type(signed).enumerators() == [("DOWN", -2), ("UP", 2)]
    assert codecs.get(pointer).size == 8
