"""Tests random C types in both directions against a C program. gcc makes the layout, clang the BTF."""

from __future__ import annotations

import math
import struct
import subprocess

import c_types
import pytest
from c_types import Plan, flatten
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pytest_bpfmaps.btf import Btf, Codecs
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler

# the enum with a sign shows that this clang records signs, see Btf.has_enum_signs
HEAD = """
#ifdef __bpf__
#define CONST const
#else
#define CONST
#endif
enum sign { MINUS = -1 };
"""

# For each struct: the program prints the size of a filled one and its bytes, then reads the same struct from
# its input and prints the leaves.
ORACLE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned __int128 wide;
#define INT(x) show((wide)(__int128)(x))
#define FLOAT(x) show_double(x)
static void show(wide v)
{
    printf("%016llx%016llx\\n", (unsigned long long)(v >> 64), (unsigned long long)v);
}
static void show_double(double v)
{
    unsigned long long n;
    memcpy(&n, &v, 8);
    printf("%016llx\\n", n);
}
static void dump(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf("%02x", p[i]);
    puts("");
}
static void take(void *p, size_t n)
{
    if (fread(p, 1, n, stdin) != n)
        exit(1);
}
"""


def oracle(folder, plans: list[Plan]) -> str:
    """Returns the path of the C program."""
    parts = [HEAD, ORACLE, *(p.code for p in plans)]
    for plan in plans:
        fill = "\n".join(f"    (*p){leaf.path} = {leaf.text};" for leaf in plan.leaves)
        show = "\n".join(
            f"    {'FLOAT' if leaf.kind == 'float' else 'INT'}({cast(leaf)}(*p){leaf.path});"
            for leaf in (*plan.leaves, *plan.others)
        )
        parts.append(
            f"static void do_{plan.name}(void) {{\n"
            f"    size_t n = sizeof(struct {plan.name}), m = {plan.extra}; (void)m;\n"
            f"    size_t all = {end_of(plan)};\n"
            f"    struct {plan.name} *p = calloc(1, all + n);\n{fill}\n"
            f'    printf("%zu\\n", n); dump((void *)p, all);\n'
            f"    memset(p, 0, all); take(p, all > n ? all : n);\n{show}\n    free(p);\n}}\n"
        )
    parts.append("int main(void) { " + " ".join(f"do_{p.name}();" for p in plans) + " return 0; }\n")
    source = folder / "oracle.c"
    source.write_text("".join(parts))
    program = str(folder / "oracle")
    subprocess.run(["gcc", "-w", "-O0", "-fsigned-char", "-o", program, str(source)], check=True)
    return program


def cast(leaf) -> str:
    return "(unsigned long)" if leaf.kind == "pointer" else ""


def end_of(plan: Plan) -> str:
    """Returns a record's length. A flexible array begins before the padding at the struct's end."""
    if plan.extra == "0":
        return "n"
    name = plan.leaves[-1].path.split("[")[0][1:]
    return f"__builtin_offsetof(struct {plan.name}, {name}) + m"


@pytest.fixture(scope="module")
def enum_signs(tmp_path_factory) -> bool:
    """Returns whether this clang records the sign of enums, and 64-bit ones (clang 16 and later)."""
    return codecs_of(tmp_path_factory.mktemp("signs"), []).btf.has_enum_signs


def codecs_of(folder, plans: list[Plan]) -> Codecs:
    code = HEAD + "enum sign sign;\n" + "".join(f"{p.code}struct {p.name} v_{p.name};\n" for p in plans)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPFMAPS_CACHE", str(folder))
        path = LocalCompiler().compile(CompileRequest(code=code, cflags=("-w",)))
    with path.open("rb") as file:
        return Codecs(Btf(ELFFile(file).get_section_by_name(".BTF").data()))


def reads_as(record, leaf, line: str) -> bool:
    """Returns whether a number of the record is what C printed for it."""
    if leaf.kind == "letter":
        holder, _, index = leaf.path.removesuffix("]").rpartition("[")
        raw = eval(f"record{holder}", {"record": record}).encode(errors="surrogateescape") + b"\0"
        at = int(index)  # the value has no bytes after the NUL
        return at >= len(raw) or int(line, 16) & 0xFF == raw[at]
    found = eval(f"record{leaf.path}", {"record": record})
    if isinstance(found, bool):
        return found == bool(int(line, 16))
    if isinstance(found, float):
        theirs = struct.unpack(">d", bytes.fromhex(line))[0]
        return theirs == found or (math.isnan(theirs) and math.isnan(found))
    return int(found) & (1 << 128) - 1 == int(line, 16)


def check_round_trips(codec, record, plan: Plan) -> None:
    """Every form in which a value can be written gives the same value."""
    assert record == plan.value, plan.code
    for shape in (record._asdict(), tuple(record), record, plan.value):
        made = codec.encode_record(shape, plan.name)
        again = codec.decode_rest(made[: len(bytes(record))])  # a flexible array may begin in the padding
        assert repr(again) == repr(record), (shape, plan.code)
    if record == tuple(record):  # False when a union's other member is a NaN
        assert hash(record) == hash(tuple(record)), plan.code


@settings(
    max_examples=6,
    deadline=None,
    database=None,
    phases=[
        Phase.explicit,
        Phase.generate,
    ],  # no shrinking: it would compile for minutes, and a failure names its struct
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(data=st.data())
def test_random_types_both_directions(tmp_path_factory, enum_signs, data):
    plans = data.draw(c_types.plans(enum_signs))
    folder = tmp_path_factory.mktemp("types")
    codecs = codecs_of(folder, plans)
    program = oracle(folder, plans)
    structs = [codecs.struct(p.name) for p in plans]
    written = [s.encode_record(p.value, p.name) for s, p in zip(structs, plans, strict=True)]
    done = subprocess.run([program], input=b"".join(written), capture_output=True, check=True)
    lines = iter(done.stdout.decode().splitlines())
    for plan, codec, ours in zip(plans, structs, written, strict=True):
        assert codec.size == int(next(lines)), plan.code
        theirs = bytes.fromhex(next(lines))
        for leaf in plan.leaves:  # Python wrote, C reads
            assert next(lines) == leaf.expected, (leaf.path, plan.code)
        for leaf in plan.others:  # the other members of unions
            assert reads_as(codec.decode_rest(ours), leaf, next(lines)), (leaf.path, plan.code)
        record = codec.decode_rest(theirs)  # C wrote, Python reads
        for path, value in flatten(plan.value):
            found = eval(f"record{path}", {"record": record})
            assert found == value, (path, plan.code)
            assert isinstance(found, type(value)), (path, plan.code)
        check_round_trips(codec, record, plan)
        assert theirs.ljust(len(ours), b"\0") == ours.ljust(len(theirs), b"\0"), plan.code
