"""Tells which registers an instruction reads and writes. Source: Documentation/bpf/standardization."""

from __future__ import annotations

from pytest_bpfmaps.verifier.control_flow import Instruction

_LDX, _STX, _ALU, _ALU64 = 1, 3, 4, 7  # classes
_WIDE, _CALL, _EXIT, _JA, _JA32 = 0x18, 0x85, 0x95, 0x05, 0x06
_ATOMIC, _MOV = 0xC0, 0xB0
_FETCH, FETCH_ADD, _CMPXCHG = 0x01, 0x01, 0xF1


def is_atomic(one: Instruction) -> bool:
    """Returns whether it is an atomic operation."""
    return one.code & 7 == _STX and one.code & 0xE0 == _ATOMIC


def fetches_into(one: Instruction) -> int | None:
    """Returns the register that gets the result of an atomic operation; None if none does."""
    if not one.number & _FETCH:
        return None
    return 0 if one.number == _CMPXCHG else one.source


def reads(one: Instruction, destination: int, register: int) -> bool:
    """Returns whether an instruction reads a register. A call counts as reading all that may be arguments."""
    kind, by_register = one.code & 7, bool(one.code & 8) and one.source == register
    if one.code == _WIDE or kind == 0:
        return False
    if one.code == _CALL:
        return 1 <= register <= 5
    if one.code == _EXIT:
        return register == 0
    if one.jumps:
        return one.code not in (_JA, _JA32) and (destination == register or by_register)
    if kind in (_ALU, _ALU64):
        return by_register or (destination == register and one.code & 0xF0 != _MOV)
    if kind == _LDX:
        return one.source == register
    if is_atomic(one) and one.number == _CMPXCHG and register == 0:
        return True
    return destination == register or (kind == _STX and one.source == register)


def writes(one: Instruction, destination: int, register: int) -> bool:
    """Returns whether an instruction writes a register. A call writes the result and clears the arguments."""
    kind = one.code & 7
    if one.code == _CALL:
        return register <= 5
    if kind == 0:
        return one.code != _WIDE or destination == register
    if is_atomic(one):
        return fetches_into(one) == register
    return destination == register and kind in (_LDX, _ALU, _ALU64)
