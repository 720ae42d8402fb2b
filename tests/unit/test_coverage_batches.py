"""Tests that objects whose coverage is read together give what each of them gives alone."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.counting import Facts, facts_file
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.coverage.counters import llvm_tools
from pytest_bpfmaps.coverage.counters.batches import divide
from pytest_bpfmaps.coverage.counters.resolve import resolve
from pytest_bpfmaps.coverage.data import Coverage
from pytest_bpfmaps.coverage.engines import Record

BPF = Path(__file__).parents[2] / "bpf"
HEADER = """
static __attribute__((noinline)) int weight(int n) { return n > 3 ? n * 2 : n; }
static __attribute__((unused)) int half(int n) { return n ? n / 2 : 1; }
"""
SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "weight.h"
static __attribute__((noinline)) int same_name(int n) {{ return n > {limit} && n < 90 ? weight(n) : 1; }}
SEC("xdp") int judge(struct xdp_md *ctx) {{ return {call}(ctx->ingress_ifindex) ? XDP_PASS : XDP_DROP; }}
char LICENSE[] SEC("license") = "GPL";
"""


@dataclass(frozen=True)
class Named:
    identities: frozenset[str]


@given(
    st.lists(st.builds(Named, st.frozensets(st.sampled_from("abcdefgh"), max_size=4)), max_size=20),
    st.integers(1, 6),
)
def test_members_of_a_batch_have_nothing_in_common(objects: list[Named], most: int) -> None:
    batches = divide(objects, most)
    assert sorted(map(id, objects)) == sorted(id(each) for batch in batches for each in batch)
    for batch in batches:
        assert 1 <= len(batch) <= most
        assert len(frozenset[str]().union(*(each.identities for each in batch))) == sum(
            len(each.identities) for each in batch
        )


@pytest.fixture
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Objects of the gallery, and some with the same names of functions and the same header."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "weight.h").write_text(HEADER)
    for number, call in enumerate(("same_name", "weight", "half", "same_name")):
        (tmp_path / f"{number}.bpf.c").write_text(SOURCE.format(limit=10 + number, call=call))
    (tmp_path / "sub").mkdir()
    twin = tmp_path / "sub" / "0.bpf.c"  # its static functions have the same names, too
    twin.write_text((tmp_path / "0.bpf.c").read_text())
    sources = [*tmp_path.glob("*.bpf.c"), twin, *sorted(BPF.glob("d*.bpf.c"))]
    compiler = LocalCompiler()
    requests = [CompileRequest(source=str(one), include=(str(tmp_path),), counting=True) for one in sources]
    requests.append(
        CompileRequest(source=str(twin), include=(str(tmp_path),), counting=True, cflags=("-O1",))
    )
    return [compiler.compile(each) for each in requests]


def records(objects: Iterable[Path], seed: int) -> list[Record]:
    drawn = random.Random(seed)
    made = []
    for kernel in ("5.10", "6.1"):
        for path in objects:
            counters = Facts.from_json(facts_file(path).read_text()).size // 8
            counts = [(number, drawn.choice([0, 1, drawn.randrange(1000)])) for number in range(counters)]
            counted = {"objects": [str(path)], "names": [path.name], "counts": counts, "vectors": []}
            made.append(Record("counters", kernel, "", {**counted, "unreachable": None}))
    return made


def covered(records: Iterable[Record], into: Coverage) -> None:
    said: list[str] = []
    resolve(list(records), into, said.append)
    assert said == []


def test_together_they_give_what_each_gives_alone(
    objects: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []
    run_tool = llvm_tools.run_tool

    def noted(*command: str) -> bytes:
        runs.append(command[1])
        return run_tool(*command)

    covered(records(objects, 2), Coverage())  # what an object can have counts for is kept now
    monkeypatch.setattr(llvm_tools, "run_tool", noted)
    alone, together = Coverage(), Coverage()
    for each in records(objects, 2):
        covered([each], alone)
    few, runs[:] = len(runs), []
    covered(records(objects, 2), together)
    assert together.to_plain() == alone.to_plain()
    assert together.paths() == alone.paths() != []
    assert len(runs) < few * 3 / 4


def test_one_that_can_not_be_read_does_not_harm_the_others(objects: list[Path]) -> None:
    expected, found = Coverage(), Coverage()
    covered(records(objects, 1)[1 : len(objects)], expected)
    objects[0].with_suffix(".map").write_bytes(b"damaged")
    said: list[str] = []
    resolve(records(objects, 1)[: len(objects)], found, said.append)
    assert len(said) == 1
    assert found.to_plain() == expected.to_plain()
