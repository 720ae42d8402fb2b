"""Tests which conditions were seen to decide alone (MC/DC), and what `llvm-cov show` says of them."""

from __future__ import annotations

import pytest

from pytest_bpfmaps.coverage.counters.shown import Shown, read_shown
from pytest_bpfmaps.coverage.data import Branch, Coverage, Decision, FileCoverage
from pytest_bpfmaps.coverage.decisions import decided, judged, sums

# (a && b) || c in line 3; the example of LLVM's documentation
BARE = Decision(3, "3:7-3:20", "3:8 3:13 3:19", "", "")
WAYS = {
    Branch(3, columns, outcome): 1 for columns in ("8-9", "13-14", "19-20") for outcome in ("true", "false")
}
SHOWN = """\
    1|       |bpfmaps-file-0
    2|      4|
  ------------------
  |---> MC/DC Decision Region (3:7) to (3:20)
  |
  |  Number of Conditions: 3
  |     Condition C1 --> (3:8)
  |     Condition C2 --> (3:13)
  |     Condition C3 --> (3:19)
  |
  |  Executed MC/DC Test Vectors:
  |
  |     C1, C2, C3    Result
  |  1 { F,  C,  F  = F      }
  |  2 { T,  C,  -  = T      }
  |
  |  C1-Pair: covered: (1,2)
  |  C2-Pair: constant folded
  |  C3-Pair: not covered
  |  MC/DC Coverage for Decision: 50.00%
  |
  ------------------
    1|       |bpfmaps-file-1
  |---> MC/DC Decision Region (1:1) to (2:3)
  |  Number of Conditions: 2
  |     Condition C1 --> (1:1)
  |     Condition C2 --> (2:1)
  |     None.
"""


def _file(*vectors: str, branches: dict[Branch, int] | None = None) -> FileCoverage:
    decisions = {BARE: 0, **{BARE._replace(vector=vector): 1 for vector in vectors}}
    return FileCoverage(branches=dict(WAYS if branches is None else branches), decisions=decisions)


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ((), [False, False, False]),
        (("F-F=F", "F-T=T", "TFT=T", "TT-=T"), [True, False, True]),
        (("F-F=F", "TT-=T"), [True, False, False]),
        (("TFF=F", "TT-=T"), [False, True, False]),
        (("TFF=F", "TFT=T"), [False, False, True]),
        (("TFT=T", "TT-=T"), [False, False, False]),  # the result is the same
        (("F-F=F", "TFT=T"), [False, False, False]),  # two conditions differ
    ],
)
def test_a_condition_decides_when_only_it_and_the_result_differ(
    vectors: tuple[str, ...], expected: list[bool]
) -> None:
    assert [decided(vectors, number) for number in range(3)] == expected
    (one,) = judged(_file(*vectors))
    assert [condition.decided for condition in one.conditions] == expected
    assert one.missed == [number for number, each in enumerate(expected, 1) if not each]


def test_two_kernels_complete_a_pair() -> None:
    coverage = Coverage()
    coverage.kernel("host").files["f.c"] = _file("TFF=F")
    coverage.kernel("6.1").files["f.c"] = _file("TT-=T")
    assert [sums(coverage.merged("f.c", [kernel])) for kernel in ("host", "6.1")] == [(0, 3), (0, 3)]
    assert sums(coverage.merged("f.c")) == (1, 3)


def test_a_condition_that_has_one_way_out_does_not_count() -> None:
    """clang removed the other one, because it knows the condition's value."""
    one_way = {branch: n for branch, n in WAYS.items() if branch != Branch(3, "13-14", "true")}
    (one,) = judged(_file("F-F=F", branches=one_way))
    assert [condition.constant for condition in one.conditions] == [False, True, False]
    assert sums(_file("F-F=F", branches=one_way)) == (0, 2)
    assert judged(_file("F-F=F", branches={})) == []


def test_a_condition_of_a_macro_in_another_file_counts() -> None:
    key = Decision(3, "3:7-3:20", "9:8 3:19", "", "")
    assert sums(FileCoverage(branches=dict(WAYS), decisions={key: 0})) == (0, 2)


def test_what_llvm_cov_shows() -> None:
    assert read_shown(SHOWN, ["/a.c", "/b.h"]) == {
        "/a.c": [Shown("3:7", "3:20", ["3:8", "3:13C", "3:19"], ["FCF=F", "TC-=T"])],
        "/b.h": [Shown("1:1", "2:3", ["1:1", "2:1"], [])],
    }
