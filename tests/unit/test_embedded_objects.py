"""Tests the search for BPF objects in the binary of an agent, also for damaged ones."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from damage import damages
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_bpfmaps.btf import Btf, Kind
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.elf.editor import Elf
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.loaders.embedded_objects import NeededMap, NeededProgram, needed_by
from pytest_bpfmaps.maps.create_errors import Attributes
from pytest_bpfmaps.maps.type_rules import MMAPABLE

pytestmark = pytest.mark.skipif(
    shutil.which("clang") is None and not list(Path("/usr/bin").glob("clang-*")), reason="no clang"
)
CODE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct value {{ int number; char text[12]; }};
struct {{ __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, int);
         __type(value, struct value); }} {name}_map SEC(".maps");
int {name}_total;
SEC("xdp") int {name}(struct xdp_md *ctx)
{{
    int key = ctx->rx_queue_index;
    struct value *found = bpf_map_lookup_elem(&{name}_map, &key);
    return found ? found->number : {name}_total++;
}}
char LICENSE[] SEC("license") = "GPL";
"""
OF_INTACT = ["intact", "intact_map", ".bss"]
CHILD = Path(__file__).with_name("embedded_child.py")
SECONDS = 600.0  # for some 30 objects, which take far less than a second: only a hang needs as much


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPFMAPS_CACHE", str(tmp_path_factory.mktemp("cache")))
        compiler = LocalCompiler()
        yield {
            name: compiler.compile(CompileRequest(code=CODE.format(name=name))).read_bytes()
            for name in ("first", "intact")
        }


def binary(*parts: bytes) -> bytes:
    """Returns an executable whose read-only data has `parts`, at any address."""
    return b"\0".join([Path("/bin/true").read_bytes(), *parts, b"text after the objects" * 20])


def test_each_object_is_found(objects: dict[str, bytes], tmp_path: Path) -> None:
    agent, argument, missing = tmp_path / "agent", tmp_path / "argument.bpf.o", tmp_path / "missing"
    agent.write_bytes(binary(objects["first"], objects["intact"]))
    argument.write_bytes(objects["intact"])
    entries = Attributes(MapType.HASH, key_size=4, value_size=16, max_entries=4, map_flags=0)
    data = Attributes(MapType.ARRAY, key_size=4, value_size=4, max_entries=1, map_flags=MMAPABLE)
    first, intact = (
        [
            NeededProgram(name, "xdp", 6, 37),
            NeededMap(f"{name}_map", MapType.HASH, is_data=False, attributes=entries),
            NeededMap(".bss", MapType.ARRAY, is_data=True, attributes=data),
        ]
        for name in ("first", "intact")
    )
    assert [*needed_by([agent])] == [*first, *intact]
    assert [*needed_by([missing, tmp_path, argument, Path("/bin/true")])] == intact


@pytest.mark.parametrize("left", [1, 20, 63, 64, 1000])
def test_what_is_left_of_an_object_is_no_object(objects: dict[str, bytes], tmp_path: Path, left: int) -> None:
    agent = tmp_path / "agent"
    agent.write_bytes(Path("/bin/true").read_bytes() + objects["first"][:left])
    assert [*needed_by([agent])] == []


def test_types_that_end_libbpf_are_refused(objects: dict[str, bytes], tmp_path: Path) -> None:
    """The map's variable has a type that does not exist: libbpf before 1.3 reads from NULL then."""
    elf = Elf(objects["first"])
    section = elf.section(".BTF")
    assert section is not None
    types = bytearray(elf.content(section))
    variable = Btf(bytes(types)).find("first_map", Kind.VAR)
    assert variable is not None
    struct.pack_into("=I", types, variable.extra - 4, 0x7FFFFFFF)
    section.content = bytes(types)
    assert read(tmp_path, [binary(elf.to_bytes(), objects["intact"])]) == [OF_INTACT]


@settings(max_examples=8)
@given(data=st.data())
def test_a_damaged_object_is_read_or_left_out(objects: dict[str, bytes], data: st.DataObject) -> None:
    """It never ends the process, nor hides the intact object behind it."""
    damage = st.tuples(st.sampled_from(regions(objects["first"])), damages())
    chosen = data.draw(st.lists(damage, min_size=1, max_size=30))
    files = [binary(damaged(objects["first"], *each), objects["intact"]) for each in chosen]
    with tempfile.TemporaryDirectory() as folder:
        found = read(Path(folder), files)
    assert [names[-3:] for names in found] == [OF_INTACT] * len(files)


def regions(whole: bytes) -> list[tuple[int, int]]:
    """Returns ranges of an object that libbpf parses: the whole, the headers, and some of the sections."""
    elf = Elf(whole)
    table = int.from_bytes(whole[40:48], "little")
    parsed = [s.fields[4:6] for s in elf.sections if s.name.startswith((".BTF", ".rel", ".symtab", ".maps"))]
    headers = [(0, 64), (table, table + 64 * len(elf.sections))]
    return [(0, len(whole)), *headers, *((start, start + size) for start, size in parsed if size)]


def damaged(whole: bytes, region: tuple[int, int], damage: Callable[[bytes], bytes]) -> bytes:
    start, end = region
    return whole[:start] + damage(whole[start:end]) + whole[end:]


def read(folder: Path, files: list[bytes]) -> list[list[str]]:
    """Has a process read the files' objects. Returns the names in each file."""
    paths = [folder / str(number) for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, CHILD, *paths], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
