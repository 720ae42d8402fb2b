"""Makes programs record the values of conditions for MC/DC, in LLVM's intermediate representation as text.

clang numbers the combinations of values that the conditions of a decision can have (test vectors). LLVM
records one as a bit, with an operation that BPF lacks. This module uses a byte, in which the program stores a
1. A store does not read first, so no record is lost when several CPUs store at the same time.
https://clang.llvm.org/docs/SourceBasedCodeCoverage.html#mc-dc-instrumentation
"""

from __future__ import annotations

import re
from itertools import count

from pytest_bpfmaps.compiler.counters_ir import SECTION_OF_VECTORS, NotInstrumentedError, vectors_symbol

_CALL = r"^ *(?:tail )?call void @llvm\.instrprof\.mcdc\."
_FUNCTION = r"\(ptr @(\"?__profn_[^ ,]+), i64 -?\d+, "
_LINE = r"(, ![^\n]*)?\n"
_PARAMETERS = re.compile(rf"{_CALL}parameters{_FUNCTION}i32 (\d+)\){_LINE}", re.MULTILINE)
_CONDITION = re.compile(
    rf"{_CALL}condbitmap\.update{_FUNCTION}i32 (\d+), ptr ([^ ,]+), i1 ([^ ,)]+)\){_LINE}", re.MULTILINE
)
# clang 18 gives the number of bytes as well, and the index of a byte; later ones the index of a bit
_VECTOR = re.compile(
    rf"{_CALL}tvbitmap\.update{_FUNCTION}(i32 \d+, )?i32 (\d+), ptr ([^ ,)]+)\){_LINE}", re.MULTILINE
)
_FIRST_NAME = re.compile(r'^@"?__profn_', re.MULTILINE)
_ARRAY = '@{} = global [{} x i8] zeroinitializer, section "{}", align 8\n'


def lower(text: str) -> str:
    """Returns the text with stores in place of what clang wrote for LLVM's own runtime.

    Raises `NotInstrumentedError` when the text is not as clang 18 to 21 write it.
    """
    by_bytes = all(found[2] for found in _VECTOR.finditer(text))
    bits = {found[1]: int(found[2]) * (8 if by_bytes else 1) for found in _PARAMETERS.finditer(text)}
    numbers = count()
    text = _PARAMETERS.sub("", text)
    text = _CONDITION.sub(lambda found: _condition(next(numbers), found), text)
    text = _VECTOR.sub(lambda found: _vector(next(numbers), found, bits), text)
    if re.search(_CALL, text, re.MULTILINE):
        raise NotInstrumentedError("this clang writes its conditions in another way")
    # The arrays are global symbols: the optimizer would remove private ones, which nothing reads.
    arrays = "".join(
        _ARRAY.format(vectors_symbol(name), _room(size), SECTION_OF_VECTORS)
        for name, size in bits.items()
        if size
    )
    return _FIRST_NAME.sub(lambda found: arrays + found[0], text, count=1)


def _room(size: int) -> int:
    """Returns the bytes of an array for `size` test vectors: a power of two."""
    return max(8, 1 << (size - 1).bit_length())


def _condition(number: int, found: re.Match[str]) -> str:
    """Adds the value of a condition to the number of the test vector (clang 18)."""
    _, bit, temporary, value, line = found.groups()
    name = f"%bpfcov{number}"
    return _lines(
        line,
        f"{name} = load i32, ptr {temporary}, align 4",
        f"{name}.value = zext i1 {value} to i32",
        f"{name}.bit = shl i32 {name}.value, {bit}",
        f"{name}.all = or i32 {name}, {name}.bit",
        f"store i32 {name}.all, ptr {temporary}, align 4",
    )


def _vector(number: int, found: re.Match[str], bits: dict[str, int]) -> str:
    """Stores a 1 in the byte of the test vector that occurred.

    The number is always inside the array, but the verifier can't always prove that. So its upper bits are
    cleared. LLVM knows the possible numbers, and would remove that operation as needless. An empty piece of
    assembly hides from LLVM where the number comes from. (Comparing the number with the size does not help:
    Linux 6.1 also checks the path with an impossible number, and refuses it.)
    """
    function, size, index, temporary, line = found.groups()
    if not bits.get(function):
        raise NotInstrumentedError(f"the number of test vectors of {function} is not known")
    name, start = f"%bpfcov{number}", int(index) * (8 if size else 1)
    return _lines(
        line,
        f"{name} = load i32, ptr {temporary}, align 4",
        f"{name}.sum = add i32 {name}, {start}",
        f"{name}.wide = zext i32 {name}.sum to i64",
        f'{name}.any = call i64 asm "", "=r,0"(i64 {name}.wide)',
        f"{name}.index = and i64 {name}.any, {_room(bits[function]) - 1}",
        f"{name}.byte = getelementptr inbounds i8, ptr @{vectors_symbol(function)}, i64 {name}.index",
        f"store i8 1, ptr {name}.byte, align 1",
    )


def _lines(line: str | None, *instructions: str) -> str:
    return "".join(f"  {each}{line or ''}\n" for each in instructions)
