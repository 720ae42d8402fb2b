"""Tests the Python readers with damaged input: they raise only our own errors, and soon.

``BPFMAPS_FUZZ=10000`` tries 10,000 inputs of each kind.
"""

import random
import shutil
import string
from pathlib import Path

import pytest
from mutations import how_many, mutated, mutated_text

from pytest_bpfmaps import BpfError
from pytest_bpfmaps.btf import Btf, Codecs, Kind
from pytest_bpfmaps.btf.decl_tags import function_tags
from pytest_bpfmaps.btf.dwarf import read_local_types
from pytest_bpfmaps.btf.line_info import source_lines
from pytest_bpfmaps.btf.validate import check_soundness
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.legacy_maps import upgraded
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.elf.editor import Elf
from pytest_bpfmaps.selftests.annotations import expected_of
from pytest_bpfmaps.selftests.runner import cases_of
from pytest_bpfmaps.verifier import advise, parse_log
from pytest_bpfmaps.verifier.expected_messages import by_text, mismatch

NOT_VALUES = {Kind.FUNC, Kind.FUNC_PROTO, Kind.VAR, Kind.DATASEC, Kind.DECL_TAG, Kind.FWD}
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "bpf" / "exec_events.bpf.c"
EXPECTING = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpfmaps_expect.h>
struct inner { int a; char name[16]; enum { ONE, TWO = -2 } kind; };
struct value { struct inner inner[3]; union { long l; double *d; }; unsigned bits : 3; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, int); __type(value, struct value);
         __uint(max_entries, 4); } values SEC(".maps");
SEC("xdp") __failure __msg("R{{[0-9]}} is bad") __retval(3) __flag(BPF_F_TEST_STATE_FREQ)
int prog(struct xdp_md *ctx) { int key = 0; return bpf_map_lookup_elem(&values, &key) != 0; }
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    cache = pytest.MonkeyPatch()
    cache.setenv("BPFMAPS_CACHE", str(tmp_path_factory.mktemp("cache")))
    with cache.context() as patch:
        patch.setenv("BPFMAPS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return LocalCompiler().compile(CompileRequest(code=EXPECTING)).read_bytes()


def ours(call, *arguments):
    """Returns whether it worked. Fails the test for another project's error, and for an empty message."""
    try:
        call(*arguments)
    except BpfError as error:
        if str(error):
            return False
        raise
    return True


def test_damaged_btf(good):
    raw = Elf(good).content(Elf(good).section(".BTF"))

    def read(data):
        function_tags(Btf(data))

    def check(data):
        check_soundness(data)
        codecs = Codecs(Btf(data))
        for each in codecs.btf:
            if each.kind not in NOT_VALUES:
                codecs.get(each.id)

    worked = 0
    for seed in range(how_many(400)):
        data = mutated(raw, seed)
        ours(read, data)
        worked += ours(check, data)
    assert worked > 0


def test_damaged_elf(good, tmp_path):
    path = tmp_path / "damaged.bpf.o"
    for seed in range(how_many(200)):
        data = mutated(good, seed, within=(0, 64) if seed % 3 else None)
        path.write_bytes(data)
        ours(cases_of, path, path.name)
        ours(upgraded, data, path.name)
        ours(source_lines, path)
        ours(read_local_types, path)


def test_damaged_tags():
    choice = random.Random(0)
    names = ["expect_msg", "retval", "prog_flags", "caps_unpriv", "arch", "jited", "log_level", "linear_size"]
    for _ in range(how_many(1000)):
        text = "".join(
            choice.choices("{}[]()*+?|^$\\=:!-0x19aé" + string.ascii_letters, k=choice.randrange(12))
        )
        ours(
            expected_of,
            "prog",
            [f"comment:{choice.choice(['', '1:', '-:'])}test_{choice.choice(names)}={text}"],
        )


def test_damaged_logs():
    logs = [p.read_text() for p in sorted((ROOT / "fixtures" / "verifier_logs").glob("*/*.log"))]
    for seed in range(how_many(500)):
        log = mutated_text(logs[seed % len(logs)], seed)
        advise(parse_log(log).text)
        mismatch(log, [by_text("R{{.*}} invalid"), by_text("processed", negative=True)])


@pytest.mark.skipif(
    shutil.which("clang") is None and not list(Path("/usr/bin").glob("clang-*")), reason="no clang"
)
def test_damaged_sources(tmp_path, monkeypatch):
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path))
    compiler = LocalCompiler(warn=lambda _: None)
    text = SOURCE.read_text().replace('"vmlinux.h"', "<linux/bpf.h>")
    worked = 0
    for seed in range(how_many(24)):
        request = CompileRequest(code=mutated_text(text, seed))
        worked += ours(compiler.compile, request)
    assert worked < how_many(24)
