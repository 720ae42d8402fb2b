"""Adapts LLVM's coverage counters to BPF, in the text of LLVM's intermediate representation.

clang writes for each function an array of counters, and data for its profile runtime. BPF has no such
runtime, so this module keeps only the counters, as plain data of one section. libbpf makes a map of that
section. Each array gets a symbol, whose value is its offset. https://llvm.org/docs/CoverageMappingFormat.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import md5

SECTION = ".data.bpfcov"
"""The section of the counters. libbpf takes sections that begin with ``.data.`` for variables."""

SECTION_OF_VECTORS = ".data.bpfmcdc"
"""The section that has a byte for each combination of conditions, see `conditions_ir`."""

_COUNTERS = re.compile(r"^@(\"?__profc_[^ ]+) = .*? global \[(\d+) x i64\] zeroinitializer")
_VECTORS = re.compile(r"^@(\"?__profbm_[^ ]+) = .*?global \[(\d+) x i8\] zeroinitializer")
_DATA = re.compile(
    r"^@\"?__profd_[^ ]+ = .*? global \{[^}]*\} \{ i64 (-?\d+), i64 (-?\d+), .*?@(\"?__profc_\S+?\"?) to i64"
)
_NAMES = re.compile(r"^@__llvm_prf_nm = .*? c\"(.*)\", section")
_USED = re.compile(
    r"^(@llvm\.(?:compiler\.)?used = appending global) \[\d+ x ([^\]]+)\] \[(.*)\](, section .*)$"
)
_UNWANTED = re.compile(r"^[@$]\"?(__profd_|__covrec_|__llvm_coverage_mapping|__llvm_prf_nm|__llvm_profile_)")
_DEFINITION = '@{} = internal global [{} x {}] zeroinitializer, section "{}", align 8'
_COMDAT = re.compile(r"^\$\"?__profc_")
_MAP = re.compile(r"^(target |[$@]__covrec_|@__llvm_coverage_mapping|@__llvm_prf_nm)")
_OF_MAP = ("@__covrec_", "@__llvm_coverage_mapping", "@__llvm_prf_nm")
_RUNTIME = ("__profd_", "__profc_", "__covrec_", "__llvm_")
_IDLE = re.compile(
    r"= (?:load atomic i64, .*@\"?__profc_.* monotonic|"
    r"atomicrmw \w+ .*@\"?__profc_.*, i64 0 monotonic)(?:, align \d+)?"
)
_ESCAPE = re.compile(rb"\\([0-9A-Fa-f]{2})")
_MENTION = re.compile(r"@(\"?__profc_[^ ,)]+)(?:(?:, i(?:64|32) 0)?, i(?:64|32) ([\d%]+))?")
_INDEXED = re.compile(r"getelementptr [^()]*\(?(\[\d+ x i64\]|i64|i8), (?:ptr|[^,]*\*) $")
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Counters:
    """The counters of a function: `count` of them at the symbol `symbol`.

    LLVM's profiles identify the function by `name` and `hash`. `gone` has the counters that the compiler
    removed together with their code. `vectors` is the size in bytes of its array in `SECTION_OF_VECTORS`, in
    which each byte stands for a bit of LLVM's bitmap; 0 if it has none.
    """

    symbol: str
    name: str
    hash: int
    count: int
    gone: tuple[int, ...] = ()
    vectors: int = 0


class NotInstrumentedError(ValueError):
    """clang wrote text that this module does not know."""


def vectors_symbol(symbol: str) -> str:
    """Returns the symbol of a function's array of test vectors, from that of its name or counters."""
    return re.sub("__prof[nc]_", "__profbm_", symbol, count=1)


def fit(text: str) -> tuple[str, list[Counters]]:
    """Returns the text for an object that the kernel can load, and its functions' counters.

    Raises `NotInstrumentedError` when the text is not as clang 14 to 21 write it.
    """
    kept: list[str] = []
    sizes: dict[str, int] = {}
    vectors: dict[str, int] = {}
    hashes: dict[str, tuple[int, int]] = {}
    names: dict[int, str] = {}
    for line in text.split("\n"):
        if found := _COUNTERS.match(line):
            sizes[found[1]] = int(found[2])
            kept.append(_DEFINITION.format(found[1], found[2], "i64", SECTION))
        elif found := _VECTORS.match(line):
            vectors[found[1]] = int(found[2])
            if SECTION_OF_VECTORS not in line:
                raise NotInstrumentedError("its conditions are recorded for LLVM's own runtime")
            kept.append(_DEFINITION.format(found[1], found[2], "i8", SECTION_OF_VECTORS))
        elif found := _USED.match(line):
            kept += _used(*found.groups(), leave=_RUNTIME)
        elif _COMDAT.match(line):
            continue
        elif _UNWANTED.match(line):
            if found := _DATA.match(line):
                hashes[found[3]] = (int(found[1]) & _MASK, int(found[2]) & _MASK)
            elif found := _NAMES.match(line):
                names = {_digest(name): name for name in _names(found[1])}
        else:
            # LLVM turns "add 0" to a counter into an atomic load or "or", which old clangs and kernels lack.
            kept.append(_IDLE.sub("= add i64 0, 0", line) if " monotonic" in line else line)
    if set(sizes) != set(hashes):
        raise NotInstrumentedError("some functions have counters and no hash, or the reverse")
    if missing := [symbol for symbol, (digest, _) in hashes.items() if digest not in names]:
        raise NotInstrumentedError(f"{missing[0]} has no name")
    fitted = "\n".join(kept)
    live = _live(kept)
    return fitted, [
        Counters(
            symbol.strip('"'),
            names[name],
            code,
            sizes[symbol],
            _gone(live.get(symbol, set()), sizes[symbol]),
            vectors.get(vectors_symbol(symbol), 0),
        )
        for symbol, (name, code) in hashes.items()
    ]


def coverage_map(text: str) -> str:
    """Returns the part of the same text for llvm-cov: which counters belong to which part of the source."""
    kept: list[str] = []
    for line in text.split("\n"):
        if _MAP.match(line):
            kept.append(line)
        elif found := _USED.match(line):
            kept += _used(*found.groups(), keep=_OF_MAP)
    return "\n".join([*kept, ""])


def _live(lines: list[str]) -> dict[str, set[int]]:
    """Returns for each symbol the counters that code uses. -1 is a counter that is computed at run time."""
    found: dict[str, set[int]] = {}
    for line in lines:
        if "@__profc_" not in line and '@"__profc_' not in line:
            continue
        for mention in _MENTION.finditer(line):
            if mention.start() == 0:
                continue  # the definition
            indexed = _INDEXED.search(line[: mention.start()])
            index = mention[2] or "0" if indexed else "0"
            at = int(index) if index.isdecimal() else -1
            if indexed and indexed[1] == "i8" and at > 0:
                at //= 8
            found.setdefault(mention[1], set()).add(at)
    return found


def _gone(live: set[int], count: int) -> tuple[int, ...]:
    return () if -1 in live else tuple(sorted(set(range(count)) - live))


def _used(
    head: str, kind: str, elements: str, tail: str, *, keep: Sequence[str] = (), leave: Sequence[str] = ()
) -> Iterator[str]:
    """Yields a line of `llvm.used` with the elements that name one of `keep`, and none of `leave`."""
    left = [
        one
        for one in _split(elements)
        if any(name in one for name in keep or ("",)) and not any(name in one for name in leave)
    ]
    if left:
        yield f"{head} [{len(left)} x {kind}] [{', '.join(left)}]{tail}"


def _split(elements: str) -> Iterator[str]:
    """Yields the elements of a list. A comma within brackets does not end an element."""
    depth, start = 0, 0
    for at, letter in enumerate(elements):
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            yield elements[start:at].strip()
            start = at + 1
    yield elements[start:].strip()


def _names(quoted: str) -> list[str]:
    """Returns the names in the string of ``__llvm_prf_nm``. It has two sizes, the second is 0, then names."""
    raw = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), quoted.encode())
    names: list[str] = []
    while raw:
        size, raw = _number(raw)
        packed, raw = _number(raw)
        if packed:
            raise NotInstrumentedError("the names are compressed")
        names += raw[:size].decode(errors="surrogateescape").split("\x01")
        raw = raw[size:].lstrip(b"\0")
    return names


def _number(raw: bytes) -> tuple[int, bytes]:
    """Returns a ULEB128 number, and the bytes after it."""
    value, shift = 0, 0
    for at, byte in enumerate(raw):
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, raw[at + 1 :]
    raise NotInstrumentedError("the names are cut off")


def _digest(name: str) -> int:
    """Returns LLVM's number for a name: the low 64 bits of its MD5."""
    raw = md5(name.encode(errors="surrogateescape"), usedforsecurity=False).digest()
    return int.from_bytes(raw[:8], "little")
