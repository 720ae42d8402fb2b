"""Tests the upgrade of legacy map definitions on the bytes of objects, without a kernel."""

import contextlib
import io
import shutil
import struct
import subprocess

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_bpfmaps import LoadError
from pytest_bpfmaps.btf.types import Btf, Kind
from pytest_bpfmaps.compiler.legacy_maps import upgraded, upgraded_maps
from pytest_bpfmaps.elf.editor import Elf

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct bpf_map_def { unsigned int type, key_size, value_size, max_entries, map_flags; };
struct bpf_map_def SEC("maps") counts = {BPF_MAP_TYPE_HASH, 4, 8, 3000000000u, 1};
static struct bpf_map_def SEC("maps") hidden = {BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0};
int number = 1;
SEC("xdp") int touch(struct xdp_md *ctx)
{
    __u32 zero = 0;
    bpf_map_delete_elem(&counts, &zero);
    int *value = bpf_map_lookup_elem(&hidden, &zero);
    return value ? *value : number;
}
char LICENSE[] SEC("license") = "GPL";
"""
COMPILERS = [c for c in (f"clang-{n}" for n in range(14, 22)) if shutil.which(c)]


@pytest.fixture(scope="module", params=[(c, g) for c in COMPILERS for g in ("-g", "-g0")], ids="".join)
def legacy_object(request, tmp_path_factory):
    """Returns the bytes of an object with legacy definitions."""
    compiler, debug = request.param
    folder = tmp_path_factory.mktemp("legacy")
    (folder / "x.c").write_text(SOURCE)
    flags = ["-O2", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu", debug]
    subprocess.run([compiler, *flags, "-c", folder / "x.c", "-o", folder / "x.o"], check=True)
    return (folder / "x.o").read_bytes()


@pytest.fixture(scope="module")
def new_object(legacy_object):
    """Returns the object after the upgrade."""
    made = upgraded(legacy_object, "x.o")
    assert made is not None
    return made


def test_the_upgraded_object_is_valid_to_another_reader(legacy_object, new_object):
    old, new = (ELFFile(io.BytesIO(data)) for data in (legacy_object, new_object))
    assert new.get_section_by_name("maps") is None
    maps = new.get_section_by_name(".maps")
    indices = {s.name: i for i, s in enumerate(new.iter_sections())}
    table = new.get_section_by_name(".symtab")
    for name in ("counts", "hidden"):
        symbol = table.get_symbol_by_name(name)[-1]
        assert symbol["st_shndx"] == indices[".maps"]
        assert symbol["st_info"]["bind"] == "STB_GLOBAL"
        assert symbol["st_value"] + symbol["st_size"] <= maps["sh_size"]
    # programs and data have not changed
    for name in ("license", ".data"):
        assert new.get_section_by_name(name).data() == old.get_section_by_name(name).data()
    if old.has_dwarf_info():
        assert [c.get_top_DIE().tag for c in new.get_dwarf_info().iter_CUs()] == ["DW_TAG_compile_unit"]


def test_references_to_maps_go_by_symbol(new_object):
    new = ELFFile(io.BytesIO(new_object))
    table = new.get_section_by_name(".symtab")
    relocations = list(new.get_section_by_name(".relxdp").iter_relocations())
    names = [table.get_symbol(r["r_info_sym"]).name for r in relocations]
    assert {"counts", "hidden"} <= set(names)
    code = new.get_section_by_name("xdp").data()
    for relocation, name in zip(relocations, names, strict=True):
        if name in ("counts", "hidden"):
            assert struct.unpack_from("=i", code, relocation["r_offset"] + 4) == (0,)


def test_the_types_say_what_the_definitions_said(new_object):
    elf = Elf(new_object)
    btf = Btf(elf.content(elf.section(".BTF")))
    section = btf.find(".maps", Kind.DATASEC)
    assert section.size == len(elf.content(elf.section(".maps")))
    found = {}
    for variable in section.variables():
        members = btf.type(variable.type_id).members()
        numbers = {m.name: btf.type(m.type_id).target for m in members}
        found[variable.name] = {n: t.array()[1] for n, t in numbers.items() if t.kind is Kind.ARRAY}
        found[variable.name] |= {n: t.name for n, t in numbers.items() if t.kind is Kind.INT}
        assert btf.type(variable.type_id).size == variable.size
    assert found["counts"] == {
        "type": 1,
        "key_size": 4,
        "value_size": 8,
        "max_entries": 3000000000,
        "map_flags": 1,
        "key": "__u32",
        "value": "__u64",
    }
    assert found["hidden"]["type"] == 2


def test_twice_is_once(new_object):
    assert upgraded(new_object, "x.o") is None


def test_the_upgraded_object_says_which_maps_were_legacy_ones(legacy_object, new_object):
    assert upgraded_maps(new_object) == ["counts", "hidden"]
    assert upgraded_maps(legacy_object) == []


def test_a_damaged_object_says_none(new_object):
    note = b".bpfmaps.legacy"
    assert upgraded_maps(note) == []
    assert upgraded_maps(new_object[:100] + note) == []
    not_text = new_object.replace(b"counts\0hidden", b"counts\0\xff\xff\xff\xff\xff\xff")
    assert not_text != new_object
    assert upgraded_maps(not_text) == []


def test_an_object_without_symbols_is_left_to_libbpf(legacy_object):
    header = struct.unpack_from("<Q", legacy_object, 40)[0]
    count = struct.unpack_from("<H", legacy_object, 60)[0]
    damaged = bytearray(legacy_object)
    for at in (header + number * 64 + 4 for number in range(count)):  # sh_type of each section
        if struct.unpack_from("<I", damaged, at)[0] in (2, 9):  # SHT_SYMTAB, SHT_REL
            damaged[at] = 0
    assert upgraded(bytes(damaged), "x.o") is None


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_objects_are_left_to_libbpf_or_refused(legacy_object, data):
    damaged = bytearray(legacy_object[: data.draw(st.integers(0, len(legacy_object)))])
    places = st.lists(st.tuples(st.integers(0, max(0, len(damaged) - 1)), st.integers(0, 255)), max_size=4)
    for at, byte in data.draw(places) if damaged else ():
        damaged[at] = byte
    with contextlib.suppress(LoadError):
        assert isinstance(upgraded(bytes(damaged), "x.o"), bytes | None)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whole_objects_with_wrong_bytes(legacy_object, data):
    damaged = bytearray(legacy_object)
    places = st.lists(
        st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)), min_size=1, max_size=20
    )
    for at, byte in data.draw(places):
        damaged[at] = byte
    with contextlib.suppress(LoadError):
        assert isinstance(upgraded(bytes(damaged), "x.o"), bytes | None)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"int x;", b"\x7fELF\2\1" + bytes(100)])
def test_what_is_no_object(content):
    assert upgraded(content, "x.o") is None


def test_bytes_that_fit_no_known_struct_need_types(tmp_path):
    definition = 'struct { __u32 fields[9]; } odd SEC("maps") = {{1, 4, 4, 1}};'
    (tmp_path / "x.c").write_text(f"#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n{definition}\n")
    flags = ["-O2", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu"]
    subprocess.run([COMPILERS[0], *flags, "-c", tmp_path / "x.c", "-o", tmp_path / "x.o"], check=True)
    with pytest.raises(
        LoadError, match=r"(?s)map 'odd' of x.o: .*no types \(BTF\), and no known .* 36 bytes\n.*clang -g"
    ):
        upgraded((tmp_path / "x.o").read_bytes(), "x.o")
