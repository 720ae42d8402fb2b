"""Tells which conditional jumps of a program come from its source, and which the kernel has put there.

The verifier replaces calls of some helpers by instructions with jumps among them, and puts checks before
divisions. Another instruction always follows such a jump: the one that the jump is about. So such a jump is
never the last thing that one place of the source became. A condition of the source is the last thing.
Source: ``do_misc_fixups()`` in kernel/bpf/verifier.c; instruction-set.rst of Linux.
"""

from __future__ import annotations

_SIZE = 8
_JMP, _JMP32, _ALU, _ALU64, _LD = 0x05, 0x06, 0x04, 0x07, 0x00  # classes
_JA, _CALL, _EXIT, _JCOND = 0x00, 0x80, 0x90, 0xE0  # operations
_MOV, _HIDDEN_REGISTER = 0xB0, 11  # BPF_REG_AX, which only the kernel uses


def trailing_conditions(instructions: bytes) -> int:
    """Returns how many conditional jumps end `instructions`, with nothing but moves among them."""
    count = 0
    for at in range(len(instructions) - _SIZE, -1, -_SIZE):
        code, registers = instructions[at], instructions[at + 1]
        kind, operation = code & 0x07, code & 0xF0
        if kind in (_JMP, _JMP32) and operation not in (_JA, _CALL, _EXIT, _JCOND):
            if _HIDDEN_REGISTER in (registers & 0x0F, registers >> 4):
                break
            count += 1
        elif not (
            (kind in (_JMP, _JMP32) and operation == _JA)
            or (kind in (_ALU, _ALU64) and operation == _MOV)
            or kind == _LD  # one of the two halves of a 64-bit constant
        ):
            break
    return count
