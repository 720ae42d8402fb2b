"""Tests that verdicts on generated decisions (MC/DC) equal llvm-cov's for the same C, run natively."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.coverage.counters.llvm_tools import tools_for
from pytest_bpfmaps.coverage.counters.resolve import resolve
from pytest_bpfmaps.coverage.data import Coverage, FileCoverage
from pytest_bpfmaps.coverage.engines import Record
from pytest_bpfmaps.coverage.recording import Recording
from pytest_bpfmaps.errors import CompileError
from pytest_bpfmaps.objects import OpenedObject

sys.path.insert(0, str(Path(__file__).parent / "covered"))
from native import HERE, native_counts
from truth import verdicts

pytestmark = pytest.mark.bpf_requires("xdp")

CONDITIONS = st.sampled_from(
    ["a", "b > 1", "c == 2", "d & 1", "a == b", "c < d", "a > 2", "!b", "d != 3", "b + c > 3", "SMALL(d)"]
)
DECISIONS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({} && {})".format, inner, inner),
        st.builds("BOTH({}, {})".format, inner, inner),
    ),
    max_leaves=7,
)
PACKETS = st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=1, max_size=10)
FUNCTION = """\
static __noinline int f{}(__u32 a, __u32 b, __u32 c, __u32 d)
{{
	__u32 found = {} ? 3 : 2;

	if ({})
		found += 4;
	return found;
}}
"""
PROGRAM = """\
#include "both.h"
#define BOTH(x, y) (x && y)
#define SMALL(x) (x < 2)
{functions}
SEC("xdp") int program(struct xdp_md *ctx)
{{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	return ({calls}) & 1 ? XDP_PASS : XDP_DROP;
}}
"""


@pytest.fixture(scope="module")
def compiler() -> LocalCompiler:
    made = LocalCompiler("clang-19")
    try:
        made.clang  # noqa: B018
    except CompileError as e:
        pytest.skip(str(e).splitlines()[0])
    return made


def measured(source: Path, packets: Sequence[bytes], compiler: LocalCompiler) -> FileCoverage:
    """Returns what was counted of the source on this kernel."""
    request = partial(CompileRequest, source=str(source), include=(str(HERE),))
    recording = Recording("counters", mcdc=True)
    opened = OpenedObject(
        compiler.compile(request()),
        observer=recording,
        counting=lambda mcdc: compiler.compile(request(counting=True, mcdc=mcdc)),
    )
    with opened, opened.load() as loaded:
        for packet in packets:
            loaded.programs["program"].run(packet)
    found = recording.take()
    told: list[str] = []
    coverage = Coverage()
    resolve([Record(**record) for record in found["records"]], coverage, told.append)
    assert told == []
    return coverage.kernels["host"].files[str(source)]


DEEP = [  # the verifier does not see by itself that the numbers of the test vectors stay in their arrays
    (
        "BOTH((a == b && b > 1), !(BOTH(b + c > 3, c == 2) && !(c < d && SMALL(d))))",
        "!(SMALL(d) && a > 2)",
    ),
    ("(BOTH((a == b && b + c > 3), (c < d && d != 3)) || (b > 1 || BOTH(a, a)))", "SMALL(d)"),
    (
        "(!(b > 1 && a > 2) || (b + c > 3 && SMALL(d)))",
        "BOTH(((b + c > 3 && c == 2) || (SMALL(d) && c < d)), (a > 2 || BOTH(!b, c < d)))",
    ),
]


@example(decisions=DEEP, values=[(0, 3, 1, 2), (3, 3, 3, 3)])
@given(decisions=st.lists(st.tuples(DECISIONS, DECISIONS), min_size=1, max_size=3), values=PACKETS)
@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_verdicts(
    compiler: LocalCompiler, decisions: list[tuple[str, str]], values: list[tuple[int, ...]]
) -> None:
    packets = [bytes([*four, *[0] * 12]) for four in values]
    functions = "\n".join(FUNCTION.format(n, *two) for n, two in enumerate(decisions))
    calls = " + ".join(f"f{n}(data[0], data[1], data[2], data[3])" for n, _ in enumerate(decisions))
    tools = tools_for(compiler.clang.path)
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "generated.bpf.c"
        source.write_text(PROGRAM.format(functions=functions, calls=calls))
        expected = native_counts(
            source, packets, Path(name), compiler.clang.path, (tools.profdata, tools.cov), mcdc=True
        )[str(source)]
        found = measured(source, packets, compiler)
    ran = {line: n for line, n in expected["lines"].items() if n or line in found.lines}
    assert found.lines == ran  # a line that clang removed, because a decision is never true, is left out
    assert verdicts(found) == expected["decisions"]
