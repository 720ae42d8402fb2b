"""Tests the arithmetic of the two modules that follow what a program's registers hold.

The results are those of the instruction set: a 32-bit operation takes the lower halves of its operands.
"""

from __future__ import annotations

import pytest

from pytest_bpfmaps.cost.register_values import _folded
from pytest_bpfmaps.coverage.counters.unreachable import Value, _computed

_ALU, _ALU64 = 4, 7
_ALL = (1 << 64) - 1
CASES = [
    (0x00, _ALU64, _ALL, 1, 0),
    (0x00, _ALU, 0xFFFF_FFFF, 1, 0),
    (0x10, _ALU64, 0, 1, _ALL),
    (0x10, _ALU, 0, 1, 0xFFFF_FFFF),
    (0x40, _ALU, 1 << 40, 3, 3),
    (0x50, _ALU64, _ALL, 1 << 40, 1 << 40),
    (0x60, _ALU, 0x8000_0001, 1, 2),
    (0x70, _ALU64, _ALL, 60, 15),
    (0x70, _ALU, _ALL, 28, 15),
]


@pytest.mark.parametrize(("operation", "kind", "left", "right", "result"), CASES)
def test_results(operation: int, kind: int, left: int, right: int, result: int) -> None:
    assert _computed(operation | kind, 0, Value(left), Value(right)) == Value(result)
    assert _folded(operation, kind == _ALU64, left, right) == ("const", result)


def test_a_move_that_extends_the_sign_is_not_followed() -> None:
    move = 0xB0 | 8 | _ALU64
    assert _computed(move, 0, None, Value(0xFF)) == Value(0xFF)
    assert _computed(move, 8, None, Value(0xFF)) is None
