"""The object that counts: its counters, what it does not have, and that it is cached."""

from __future__ import annotations

import re
import struct
from collections import Counter
from pathlib import Path

import pytest

from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.conditions_ir import lower
from pytest_bpfmaps.compiler.counters_ir import (
    SECTION,
    SECTION_OF_VECTORS,
    NotInstrumentedError,
    coverage_map,
    fit,
)
from pytest_bpfmaps.compiler.counting import Facts, facts_file, map_file
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.elf.editor import SHF_EXECINSTR, Elf
from pytest_bpfmaps.errors import CompileError

CODE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
__attribute__((noinline)) int pick(int a, int b) { return a ? b ? 1 : 2 : b && b > 3 ? 3 : 4; }
SEC("xdp") int judge(struct xdp_md *ctx)
{
    int size = ctx->data_end - ctx->data;
    if (0)
        size++;
    if (size > 20 && (size & 1 || size < 50))
        return pick(size, ctx->ingress_ifindex) ? XDP_DROP : XDP_TX;
    return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""


def compiled(clang: str, *, code: str = CODE, mcdc: bool = False) -> Path:
    compiler = LocalCompiler(clang)
    try:
        compiler.clang  # noqa: B018
    except CompileError as e:
        pytest.skip(str(e).splitlines()[0])
    return compiler.compile(CompileRequest(code=code, counting=True, mcdc=mcdc))


@pytest.fixture(params=["clang-14", "clang-19", "clang-19 with conditions"])
def made(request: pytest.FixtureRequest) -> Path:
    clang, _, conditions = request.param.partition(" ")
    return compiled(clang, mcdc=bool(conditions))


def test_each_function_has_its_place(made: Path) -> None:
    facts = Facts.from_json(facts_file(made).read_text())
    assert {each.name.rpartition(":")[2].rpartition(";")[2] for each, _ in facts.functions} == {
        "pick",
        "judge",
    }
    places = sorted((offset, offset + 8 * each.count) for each, offset in facts.functions)
    assert [start for start, _ in places] == [0, places[0][1]]
    assert places[-1][1] == facts.size
    assert Facts.from_json(facts.to_json()) == facts


def test_what_the_compiler_removed_is_known(made: Path) -> None:
    facts = Facts.from_json(facts_file(made).read_text())
    gone = {each.name: each.gone for each, _ in facts.functions}
    assert len(gone["judge"]) == 1  # if (0)
    assert gone["pick"] == ()


def test_only_additions_are_atomic(made: Path) -> None:
    """Linux before 5.12 has no other atomic operation."""
    elf = Elf(made.read_bytes())
    found = set()
    for section in elf.sections:
        if section.flags & SHF_EXECINSTR:
            instructions = list(struct.iter_unpack("=BBhi", elf.content(section)))
            found |= {operand for kind, _, _, operand in instructions if kind in (0xDB, 0xC3)}
    assert found == {0}


def test_conditions_are_stored_byte_by_byte() -> None:
    """Nothing is read before: another CPU may store at the same time."""
    with_conditions, without = compiled("clang-19", mcdc=True), compiled("clang-19")
    facts = Facts.from_json(facts_file(with_conditions).read_text())
    assert facts.conditions is not None
    assert facts.conditions.lacking == ""
    sizes = {each.name.rpartition(":")[2].rpartition(";")[2]: each.vectors for each, _ in facts.functions}
    assert sizes == {"pick": 8, "judge": 8}
    assert facts.conditions.size == 16
    assert sorted(facts.conditions.offsets.values()) == [0, 8]
    assert Elf(without.read_bytes()).section(SECTION_OF_VECTORS) is None
    one_byte = {kind: _kinds(with_conditions)[kind] - _kinds(without)[kind] for kind in (0x71, 0x72, 0x73)}
    assert one_byte[0x71] == 0  # loads
    assert one_byte[0x72] + one_byte[0x73] >= 4


def _kinds(made: Path) -> Counter[int]:
    elf = Elf(made.read_bytes())
    code = [elf.content(section) for section in elf.sections if section.flags & SHF_EXECINSTR]
    return Counter(kind for part in code for kind, *_ in struct.iter_unpack("=BBhi", part))


def test_a_clang_without_conditions_counts_all_the_same() -> None:
    made = compiled("clang-14", mcdc=True)
    facts = Facts.from_json(facts_file(made).read_text())
    assert facts.conditions is not None
    assert re.fullmatch(r"clang 14[\d.]* has no -fcoverage-mcdc", facts.conditions.lacking)
    assert facts.size > 0
    assert Facts.from_json(facts.to_json()) == facts


def test_decisions_that_clang_leaves_out_are_known() -> None:
    nested = "int f(int); int g(int a, int b)\n{\n\treturn a && f(a || b);\n}\n"
    facts = Facts.from_json(facts_file(compiled("clang-19", code=nested, mcdc=True)).read_text())
    assert facts.conditions is not None
    ((path, line, why),) = facts.conditions.left_out
    assert (Path(path).name, line) == ("inline.bpf.c", 3)
    assert "nested boolean expression" in why
    assert Facts.from_json(facts.to_json()) == facts


NAME = '@__profn_f = private constant [1 x i8] c"f"\n'
HEAD = "call void @llvm.instrprof.mcdc"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{NAME}  {HEAD}.another(ptr @__profn_f, i64 1)\n", "in another way"),
        (f"{NAME}  {HEAD}.tvbitmap.update(ptr @__profn_f, i64 1, i32 0, ptr %4)\n", "is not known"),
    ],
)
def test_conditions_of_an_unknown_compiler(text: str, words: str) -> None:
    with pytest.raises(NotInstrumentedError, match=words):
        lower(text)


def test_the_text_of_clang_18() -> None:
    """It gives sizes in bytes, and adds the bit of each condition with a call."""
    text = (
        f"{NAME}  {HEAD}.parameters(ptr @__profn_f, i64 1, i32 2), !dbg !1\n"
        f"  {HEAD}.condbitmap.update(ptr @__profn_f, i64 1, i32 3, ptr %4, i1 %7), !dbg !2\n"
        f"  {HEAD}.tvbitmap.update(ptr @__profn_f, i64 1, i32 2, i32 1, ptr %4), !dbg !3\n"
    )
    made = lower(text).splitlines()
    assert f'@__profbm_f = global [16 x i8] zeroinitializer, section "{SECTION_OF_VECTORS}", align 8' in made
    assert "  %bpfcov0.bit = shl i32 %bpfcov0.value, 3, !dbg !2" in made
    assert "  %bpfcov1.sum = add i32 %bpfcov1, 8, !dbg !3" in made
    assert "  %bpfcov1.index = and i64 %bpfcov1.any, 15, !dbg !3" in made
    assert not [line for line in made if "mcdc" in line and "call" in line]


def test_nothing_of_the_profile_runtime_is_left(made: Path) -> None:
    elf = Elf(made.read_bytes())
    assert elf.section(SECTION) is not None
    assert not [
        section.name for section in elf.sections if "llvm_prf" in section.name or "llvm_cov" in section.name
    ]
    assert not [s.name for s in elf.symbols() if s.name.startswith(("__llvm", "__profd", "__covrec"))]
    kept = {section.name for section in Elf(map_file(made).read_bytes()).sections}
    assert {"__llvm_covmap", "__llvm_covfun", "__llvm_prf_names"} <= kept


def test_the_plain_object_is_another(made: Path) -> None:
    plain = LocalCompiler().compile(CompileRequest(code=CODE))
    assert plain != made
    assert Elf(plain.read_bytes()).section(SECTION) is None
    assert plain.name == made.name  # libbpf names maps after it


def test_damaged_facts_have_it_compiled_anew(tmp_path: Path) -> None:
    compiler, request = LocalCompiler(), CompileRequest(code=CODE + "// another\n", counting=True)
    made = compiler.compile(request)
    before = facts_file(made).read_text()
    facts_file(made).chmod(0o644)
    facts_file(made).write_text("{}")
    assert compiler.compile(request) == made
    assert facts_file(made).read_text() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('@__profc_f = private global [2 x i64] zeroinitializer, section "__llvm_prf_cnts"', "no hash"),
        ('@__llvm_prf_nm = private constant [2 x i8] c"\\01\\05a", section "x"', "compressed"),
        ('@__llvm_prf_nm = private constant [2 x i8] c"\\81", section "x"', "cut off"),
        ('@__profbm_f = private global [2 x i8] zeroinitializer, section "__llvm_prf_bits"', "own runtime"),
    ],
)
def test_text_of_an_unknown_compiler(text: str, words: str) -> None:
    with pytest.raises(NotInstrumentedError, match=words):
        fit(text)


def test_text_without_functions() -> None:
    assert fit('target triple = "bpf"\n') == ('target triple = "bpf"\n', [])
    assert coverage_map("define i32 @f() {\n}") == ""
