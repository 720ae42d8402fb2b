"""Tests that BTF which contradicts itself is refused, with a message that names the type."""

import struct

import pytest

from pytest_bpfmaps import LoadError
from pytest_bpfmaps.btf.types import Kind, Member
from pytest_bpfmaps.btf.validate import check_soundness
from pytest_bpfmaps.btf.writer import BtfWriter

TYPES_AT, INT_WORD = 24, 12  # bytes: the length of the header, and the offset of an INT's encoding


def integer(offset, bits):
    """Returns BTF of a 4-byte int that uses that many bits from that offset on."""
    writer = BtfWriter()
    writer.add_int("n", 4, 0)
    raw = bytearray(writer.to_bytes())
    struct.pack_into("=I", raw, TYPES_AT + INT_WORD, offset << 16 | bits)
    return bytes(raw)


@pytest.mark.parametrize("place", [(0, 32), (0, 1), (31, 1), (16, 16), (1, 31)])
def test_an_integer_within_its_bytes(place):
    check_soundness(integer(*place))


@pytest.mark.parametrize("place", [(0, 33), (1, 32), (31, 2), (32, 1)])
def test_an_integer_beyond_its_bytes(place):
    with pytest.raises(LoadError, match=f"integer 1 has {place[1]} bits in 4 bytes"):
        check_soundness(integer(*place))


def member(type_id):
    return [Member("x", type_id, 0, 0)]


BEYOND, INSIDE = "type 2 refers to type 3, but the last type is 2", "type 2 is a part of itself"
WRONG = {
    "pointer": (
        lambda w: w.add_reference(Kind.PTR, "", 9),
        "type 2 refers to type 9, but the last type is 2",
    ),
    "typedef": (lambda w: w.add_reference(Kind.TYPEDEF, "t", 3), BEYOND),
    "array": (lambda w: w.add_array(3, 1), BEYOND),
    "union": (lambda w: w.add_struct(Kind.UNION, "u", 4, member(3)), BEYOND),
    "struct_in_itself": (lambda w: w.add_struct(Kind.STRUCT, "s", 4, member(2)), INSIDE),
    "const_of_itself": (lambda w: w.add_reference(Kind.CONST, "", 2), INSIDE),
    "array_of_itself": (lambda w: w.add_array(2, 1), INSIDE),
    "int": (lambda w: w.add_int("odd", 3, 0), "INT 2 has 3 bytes"),
    "float": (lambda w: w.add_float("odd", 3), "FLOAT 2 has 3 bytes"),
    "enum": (lambda w: w.add_enum("odd", 3, [("A", 1)]), "ENUM 2 has 3 bytes"),
    "empty_enum": (lambda w: w.add_enum("none", 0, [("A", 1)]), "ENUM 2 has 0 bytes"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be(wrong):
    add, why = WRONG[wrong]
    writer = BtfWriter()
    writer.add_int("n", 4, 0)
    add(writer)
    with pytest.raises(LoadError, match=f"cannot read BTF: {why}"):
        check_soundness(writer.to_bytes())


def test_a_longer_way_to_itself():
    writer = BtfWriter()
    writer.add_struct(Kind.STRUCT, "a", 4, member(2))
    writer.add_array(3, 1)
    writer.add_reference(Kind.TYPEDEF, "t", 1)
    with pytest.raises(LoadError, match="type 1 is a part of itself"):
        check_soundness(writer.to_bytes())


def test_what_looks_alike_and_is_sound():
    writer = BtfWriter()
    writer.add_int("n", 4, 0)
    writer.add_reference(Kind.PTR, "", 3)
    writer.add_struct(Kind.STRUCT, "list", 8, member(2))  # a pointer to itself
    writer.add_struct(Kind.STRUCT, "twice", 8, [*member(1), Member("y", 1, 32, 0)])
    writer.add_enum("declared", 0, [])
    check_soundness(writer.to_bytes())


STRINGS_SIZE_AT = 20  # bytes: where the header has it


@pytest.mark.parametrize("wrong", ["longer than the section", "without an end", "without the empty one"])
def test_strings(wrong):
    raw = bytearray(integer(0, 32))
    check_soundness(bytes(raw))
    (size,) = struct.unpack_from("=I", raw, STRINGS_SIZE_AT)
    if wrong == "longer than the section":
        struct.pack_into("=I", raw, STRINGS_SIZE_AT, size + 1)
    else:
        raw[-1 if wrong == "without an end" else -size] = ord("x")
    with pytest.raises(LoadError, match="its string section is cut, or does not begin and end with NUL"):
        check_soundness(bytes(raw))
