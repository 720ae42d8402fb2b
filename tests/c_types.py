"""Random C types with a value for each: Hypothesis strategies, and the C text that gcc and clang compile.

Nothing here uses the package: the C compiler knows where a field lies, this file only knows its name.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

INTS = {
    "char": (8, True),
    "signed char": (8, True),
    "unsigned char": (8, False),
    "short": (16, True),
    "unsigned short": (16, False),
    "int": (32, True),
    "unsigned": (32, False),
    "long": (64, True),
    "unsigned long": (64, False),
    "long long": (64, True),
    "unsigned long long": (64, False),
    "__int128": (128, True),
    "unsigned __int128": (128, False),
}
ALIGNED = [f" __attribute__((aligned({n})))" for n in (2, 16, 64, 256)]
POINTERS = ["void *", "struct unknown *", "const char **"]


@dataclass
class Leaf:
    """A place that holds a number: what C prints must be `expected`, what C assigns is `text`.

    `kind` is that of its scalar type, or "letter" for a part of a text.
    """

    path: str
    expected: str
    text: str
    kind: str = "int"


@dataclass
class Declared:
    """A field: its declaration, its Python value, its leaves below a path.

    `others` are the leaves of union members that the value does not name.
    """

    name: str
    declaration: str
    value: Any
    leaves: list[Leaf] = field(default_factory=list)
    prologue: str = ""
    others: list[Leaf] = field(default_factory=list)


@dataclass
class Plan:
    """A top-level struct. `extra` is the length of its flexible array in bytes."""

    name: str
    code: str
    value: dict[str, Any]
    leaves: list[Leaf]
    extra: str
    others: list[Leaf]


def number(bits: int, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.integers(low, high) | st.sampled_from(sorted({low, high, 0}))


def int_leaf(path: str, value: int) -> Leaf:
    high, low = value >> 64 & (2**64 - 1), value & (2**64 - 1)
    return Leaf(path, f"{high:016x}{low:016x}", f"(wide)0x{high:x}ull << 64 | 0x{low:x}ull")


def float_leaf(path: str, value: float) -> Leaf:
    text = value.hex() if math.isfinite(value) else f"{'-' if value < 0 else ''}__builtin_inf()"
    return Leaf(path, struct.pack(">d", value).hex(), text, "float")


@dataclass
class Scalar:
    """A type without parts: its C name, how to draw a value, and how C sees one."""

    text: str
    prologue: str
    kind: str  # "int", "bool", "float", "pointer", "char", "byte"
    bits: int
    signed: bool
    values: st.SearchStrategy[Any]

    def leaf(self, path: str, value: Any) -> Leaf:
        if self.kind == "float":
            return float_leaf(path, value)
        made = int_leaf(path, int(value))
        made.kind = self.kind
        if self.kind == "pointer":
            made.text = f"(void *)0x{value:x}ul"
        return made


class Names:
    """Names that are unique in a translation unit, and what may occur in it.

    `enum_signs`: the compiler records the sign of enums. `floats`: some fields are floating point numbers.
    """

    def __init__(self, enum_signs: bool, floats: bool = True) -> None:
        self._count = itertools.count()
        self.enum_signs = enum_signs
        self.floats = floats

    def __call__(self, prefix: str) -> str:
        return f"{prefix}{next(self._count)}"


@st.composite
def scalars(draw: Any, names: Names, *, bitfield: bool = False) -> Scalar:
    kinds = ["int", "int", "int", "bool", "enum", *([] if bitfield else ["pointer"])]
    if names.floats and not bitfield:
        kinds.append("float")
    match draw(st.sampled_from(kinds)):
        case "int":
            text = draw(st.sampled_from([n for n, (bits, _) in INTS.items() if bits <= 64 or not bitfield]))
            bits, signed = INTS[text]
            kind = {"char": "char", "unsigned char": "byte"}.get(text, "int")
            made = Scalar(text, "", kind, bits, signed, number(bits, signed))
        case "bool":
            made = Scalar("_Bool", "", "bool", 1, False, st.booleans())
        case "enum":
            made = draw(enums(names, wide=not bitfield))
        case "float":
            text, bits = draw(st.sampled_from([("float", 32), ("double", 64)]))
            made = Scalar(text, "", "float", bits, True, st.floats(allow_nan=False, width=bits))
        case _:
            text = draw(st.sampled_from(POINTERS))
            made = Scalar(text, "", "pointer", 64, False, number(64, False))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        alias = names("t")
        qualifier = draw(st.sampled_from(["", "", "CONST ", "volatile "]))
        made.prologue += f"typedef {qualifier}{made.text} {alias};\n"
        made.text = alias
    return made


@st.composite
def enums(draw: Any, names: Names, *, wide: bool) -> Scalar:
    name = names("e")
    kinds = [(32, False), (32, True)]
    if wide and names.enum_signs:
        kinds += [(64, False), (64, True)]
    bits, signed = draw(st.sampled_from(kinds))
    # the compiler chooses the narrowest type: one enumerator makes it the one that was drawn
    forced = {(32, False): 0, (32, True): -1, (64, False): 2**64 - 1, (64, True): -(2**63)}[bits, signed]
    # clang before 16 leaves a reader to guess by the size of the numbers
    listed = number(bits, signed) if names.enum_signs else st.integers(-60000 if signed else 0, 2**30 - 1)
    values = [forced, *draw(st.lists(listed, max_size=3))]
    unique = list(dict.fromkeys(values))
    texts = [f"{name}_{i} = {_literal(v)}" for i, v in enumerate(unique)]
    prologue = f"enum {name} {{ {', '.join(texts)} }};\n"
    return Scalar(
        f"enum {name}", prologue, "int", bits, signed, st.sampled_from(unique) | number(bits, signed)
    )


def _literal(value: int) -> str:
    if value == -(2**63):
        return "-0x7fffffffffffffffll - 1"
    return f"{value}ull" if value >= 2**63 else f"{value}" if abs(value) < 2**31 else f"{value}ll"


@st.composite
def fields(draw: Any, names: Names, depth: int, path: str) -> Declared:
    """A named field, or an unnamed struct or union (name "") whose value is a dict to be merged."""
    options = ["scalar", "scalar", "array", "bits", "bits", "gap"]
    if depth:
        options += ["struct", "union", "anonymous struct", "anonymous union", "structs", "many", "many"]
    kind = draw(st.sampled_from(options))
    name = names("f")
    at = f"{path}.{name}"
    aligned = draw(st.sampled_from(["", "", "", *ALIGNED]))
    if kind == "scalar":
        scalar = draw(scalars(names))
        value = draw(scalar.values)
        text = f"{scalar.text} {name}{aligned};"
        return Declared(name, text, value, [scalar.leaf(at, value)], scalar.prologue)
    if kind == "array":
        return draw(arrays(names, name, at, aligned))
    if kind == "bits":
        scalar = draw(scalars(names, bitfield=True))
        width = draw(st.integers(1, scalar.bits))
        value = draw(st.booleans() if scalar.bits == 1 else number(width, scalar.signed))
        text = f"{scalar.text} {name} : {width};"
        return Declared(name, text, value, [scalar.leaf(at, value)], scalar.prologue)
    if kind == "gap":
        return Declared("", draw(st.sampled_from(["int : 0;", "int : 3;", "long : 17;"])), {})
    if kind == "structs":
        return draw(struct_arrays(names, name, at, depth))
    if kind == "many":
        return draw(body_arrays(names, name, at, depth))
    word = kind.split()[-1]
    anonymous = kind.startswith("anonymous")
    inner = draw(bodies(names, depth - 1, path if anonymous else at, word == "union"))
    attribute = draw(st.sampled_from(["", "", " __attribute__((packed))"]))
    text = f"{word} {{ {inner.declaration} }}{attribute} {'' if anonymous else name}{aligned};"
    parts = inner.value, inner.leaves, inner.prologue, inner.others
    return Declared("" if anonymous else name, text, *parts)


@st.composite
def bodies(draw: Any, names: Names, depth: int, path: str, union: bool) -> Declared:
    """The inside of a struct or union; of a union, the value names one member."""
    made = draw(st.lists(fields(names, depth, path), min_size=1, max_size=4))
    if all(not m.leaves for m in made):  # gaps alone make a struct without size
        made.append(draw(fields(names, 0, path).filter(lambda m: m.leaves)))
    chosen = [draw(st.sampled_from([m for m in made if m.leaves]))] if union else made
    value: dict[str, Any] = {}
    for member in chosen:
        value |= {member.name: member.value} if member.name else member.value
    leaves = [leaf for m in chosen for leaf in m.leaves]
    others = [leaf for m in made for leaf in m.others]
    others += [leaf for m in made if all(m is not c for c in chosen) for leaf in m.leaves]
    prologue = "".join(m.prologue for m in made)
    return Declared("", " ".join(m.declaration for m in made), value, leaves, prologue, others)


@st.composite
def arrays(draw: Any, names: Names, name: str, at: str, aligned: str) -> Declared:
    scalar = draw(scalars(names))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    leaves: list[Leaf] = []
    value = _array_value(draw, scalar, shape, at, leaves)
    dimensions = "".join(f"[{n}]" for n in shape)
    return Declared(name, f"{scalar.text} {name}{dimensions}{aligned};", value, leaves, scalar.prologue)


def _array_value(
    draw: Any, scalar: Scalar, shape: list[int], at: str, leaves: list[Leaf], *, full: bool = False
) -> Any:
    count, *rest = shape
    if rest:
        return [_array_value(draw, scalar, rest, f"{at}[{i}]", leaves) for i in range(count)]
    if scalar.kind == "char":
        alphabet = st.characters(min_codepoint=1, max_codepoint=127)
        text = draw(st.text(alphabet, min_size=count if full else 0, max_size=count))
        letters = enumerate(text.encode().ljust(count, b"\0"))
        leaves += [replace(int_leaf(f"{at}[{i}]", b), kind="letter") for i, b in letters]
        return text
    if scalar.kind == "byte":
        raw: bytes = draw(st.binary(min_size=count, max_size=count))
        leaves += [int_leaf(f"{at}[{i}]", b) for i, b in enumerate(raw)]
        return raw
    values = draw(st.lists(scalar.values, min_size=count, max_size=count))
    leaves += [scalar.leaf(f"{at}[{i}]", v) for i, v in enumerate(values)]
    return values


@st.composite
def struct_arrays(draw: Any, names: Names, name: str, at: str, depth: int) -> Declared:
    """An array of a struct of scalars; each element has its own values."""
    parts = draw(st.lists(scalars(names), min_size=1, max_size=3))
    members = [(names("f"), scalar) for scalar in parts]
    leaves, values = [], []
    for i in range(draw(st.integers(1, 3))):
        row = {n: draw(scalar.values) for n, scalar in members}
        leaves += [scalar.leaf(f"{at}[{i}].{n}", row[n]) for n, scalar in members]
        values.append(row)
    inside = " ".join(f"{scalar.text} {n};" for n, scalar in members)
    text = f"struct {{ {inside} }} {name}[{len(values)}];"
    return Declared(name, text, values, leaves, "".join(s.prologue for s in parts))


@st.composite
def body_arrays(draw: Any, names: Names, name: str, at: str, depth: int) -> Declared:
    """An array, of one or two dimensions, of structs or unions of any kind; all elements have one value."""
    word = draw(st.sampled_from(["struct", "union"]))
    inner = draw(bodies(names, depth - 1, at, word == "union"))
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    places = ["".join(f"[{i}]" for i in index) for index in itertools.product(*map(range, shape))]
    value: Any = inner.value
    for count in reversed(shape):
        value = [value] * count

    def everywhere(leaves: list[Leaf]) -> list[Leaf]:
        return [replace(leaf, path=at + p + leaf.path.removeprefix(at)) for p in places for leaf in leaves]

    dimensions = "".join(f"[{n}]" for n in shape)
    text = f"{word} {{ {inner.declaration} }} {name}{dimensions};"
    return Declared(name, text, value, everywhere(inner.leaves), inner.prologue, everywhere(inner.others))


@st.composite
def flexible_arrays(draw: Any, names: Names) -> Declared:
    name = names("f")
    count = draw(st.integers(1, 5))
    leaves: list[Leaf] = []
    if draw(st.booleans()):
        inner = draw(bodies(names, 1, "", False))
        for i in range(count):
            leaves += [replace(leaf, path=f".{name}[{i}]{leaf.path}") for leaf in inner.leaves]
        text = f"struct {{ {inner.declaration} }} {name}[];"
        return Declared(name, text, [inner.value] * count, leaves, inner.prologue)
    scalar = draw(scalars(names))
    value = _array_value(draw, scalar, [count], f".{name}", leaves, full=True)
    return Declared(name, f"{scalar.text} {name}[];", value, leaves, scalar.prologue)


@st.composite
def plans(draw: Any, enum_signs: bool, *, flexible: bool = True, floats: bool = True) -> list[Plan]:
    """Many top-level structs of one translation unit, so that one compiler run serves them all."""
    names = Names(enum_signs, floats)
    made = []
    for i in range(draw(st.integers(10, 25))):
        body = draw(bodies(names, 2, "", False))
        extra = "0"
        if flexible and draw(st.integers(0, 3)) == 0:
            tail = draw(flexible_arrays(names))
            body.declaration += " " + tail.declaration
            body.value[tail.name] = tail.value
            body.leaves += tail.leaves
            body.prologue += tail.prologue
            extra = f"{len(tail.value)} * sizeof(((struct s{i} *)0)->{tail.name}[0])"
        packed = draw(st.sampled_from(["", "", " __attribute__((packed))"]))
        code = f"{body.prologue}struct s{i} {{ {body.declaration} }}{packed};\n"
        made.append(Plan(f"s{i}", code, body.value, body.leaves, extra, body.others))
    return made


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values below a nested one, with the path to each."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from flatten(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from flatten(inner, f"{path}[{i}]")
    else:
        yield path, value
