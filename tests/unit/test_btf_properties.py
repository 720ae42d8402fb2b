"""Tests readers and writers of types with random inputs, each compared with what the input was made of."""

import ipaddress
import struct

import pytest
from elftools.common.construct_utils import ULEB128
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps import LoadError, MapOverflowError, MapValueError
from pytest_bpfmaps.btf import Btf, Codecs
from pytest_bpfmaps.btf.absent_fields import shortened
from pytest_bpfmaps.btf.codec import BoolCodec, IntCodec, WideIntCodec, short
from pytest_bpfmaps.btf.comparison import swapped_key
from pytest_bpfmaps.btf.dwarf_index import _leb128
from pytest_bpfmaps.btf.editor import BtfEditor
from pytest_bpfmaps.btf.enums import BitfieldCodec
from pytest_bpfmaps.btf.ip_addresses import AddressCodec, packed_address
from pytest_bpfmaps.btf.line_info import SourceLine, _parse
from pytest_bpfmaps.btf.numpy_arrays import from_array
from pytest_bpfmaps.btf.section import StringTable, to_section
from pytest_bpfmaps.btf.special_fields import KERNEL_FIELDS, is_kernel_field, kernel_fields
from pytest_bpfmaps.btf.types import Kind, Member
from pytest_bpfmaps.btf.unions import _with_set_bytes
from pytest_bpfmaps.btf.validate import check_soundness
from pytest_bpfmaps.btf.writer import BtfWriter

NAMES = st.text("abcxyz_", min_size=1, max_size=5)


@pytest.mark.parametrize("length", [0, 1, 57, 58, 59, 60, 61, 100])
def test_a_value_in_a_message_has_60_characters_at_most(length):
    text = "x" * length
    whole, shown = repr(text), short(text)
    assert shown == (whole if len(whole) <= 60 else whole[:57] + "...")
    assert len(shown) <= 60


@given(st.binary(max_size=3), st.integers(0, 1 << 70))
def test_a_number_of_dwarf(before, number):
    raw, rest = bytearray(before), number
    while rest >= 0x80:
        raw.append(rest & 0x7F | 0x80)
        rest >>= 7
    raw.append(rest)
    assert ULEB128("").parse(bytes(raw[len(before) :])) == number
    assert _leb128(bytes(raw) + b"\xff\x01", len(before)) == (number, len(raw))


LINES = st.tuples(st.integers(0, 1 << 20), NAMES, NAMES, st.integers(1, (1 << 22) - 1), st.integers(0, 1023))


@given(
    st.lists(st.tuples(NAMES, st.lists(LINES, min_size=1, max_size=3)), max_size=3),
    st.integers(0, 2),
    st.integers(0, 7),
    st.integers(0, 2),
)
def test_lines_of_instructions(sections, more_words, cut, functions):
    """Records may be longer than they are known, other information stands around them, a part may be cut."""
    strings = StringTable()
    body, expected = struct.pack("=I", 16 + 4 * more_words), []
    for section, lines in sections:
        body += struct.pack("=II", strings.offset(section), len(lines))
        for offset, file, text, line, column in lines:
            at_file, at_text = strings.offset(file), strings.offset(f" \t{text} ")
            body += struct.pack("=IIII", offset, at_file, at_text, line << 10 | column)
            body += b"\xff\xff\xff\xff" * more_words
            expected.append(SourceLine(section, offset, file, text, line))
    body += bytes(cut)
    before = b"\xee" * 12 * functions
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 32, 0, len(before), len(before), len(body))
    raw = header + b"\xcc" * 8 + before + body + b"\xdd" * 16  # the header may grow, too
    assert _parse(Btf(to_section(b"", strings)), raw) == expected


@given(
    st.sampled_from(sorted(KERNEL_FIELDS)), st.lists(st.sampled_from(["array", "const", "struct", "union"]))
)
def test_what_the_kernel_keeps_is_found_at_any_depth(name, around):
    writer = BtfWriter()
    writer.add_int("int", 4, 1)
    made = writer.add_struct(Kind.STRUCT, name, 4, [])
    for each in around:
        if each == "array":
            made = writer.add_array(made, 1)
        elif each == "const":
            made = writer.add_reference(Kind.CONST, "", made)
        else:
            kind = Kind.STRUCT if each == "struct" else Kind.UNION
            made = writer.add_struct(kind, "outer", 4, [Member("n", 1, 0, 0), Member("x", made, 0, 0)])
    btf = Btf(writer.to_bytes())
    assert kernel_fields(btf, made) == {name}
    assert kernel_fields(btf, 1) == set()
    assert is_kernel_field(btf, made) == (not {"struct", "union"} & set(around))
    assert not is_kernel_field(btf, 1)


@pytest.mark.parametrize(("tag", "found"), [("kptr", {"kptr"}), ("uptr", {"kptr"}), ("user", set())])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_pointers_that_the_kernel_keeps(tag, found, count):
    writer = BtfWriter()
    made = writer.add_struct(Kind.STRUCT, "task_struct", 4, [])
    made = writer.add_reference(Kind.TYPE_TAG, tag, made)
    made = writer.add_reference(Kind.TYPE_TAG, "other", made)
    made = writer.add_reference(Kind.PTR, "", made)
    for _ in range(count):
        made = writer.add_array(made, 3)
    btf = Btf(writer.to_bytes())
    assert kernel_fields(btf, made) == found
    assert is_kernel_field(btf, made) == bool(found)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_only_an_empty_array_at_the_end_takes_the_rest(counts):
    """A member is an array of bytes. Empty ones in the middle stay empty."""
    writer = BtfWriter()
    byte, at, members = writer.add_int("unsigned char", 1, 0), 0, []
    for number, count in enumerate(counts):
        members.append(Member(f"m{number}", writer.add_array(byte, count), at * 8, 0))
        at += count
    made = writer.add_struct(Kind.STRUCT, "s", at, members)
    codec = Codecs(Btf(writer.to_bytes())).get(made)
    last = max((i for i, count in enumerate(counts) if count), default=-1)
    assert [field.tail for field in codec.fields] == [i > last for i in range(len(counts))]


@given(st.integers(0, 7), st.integers(1, 30), st.integers(0, (1 << 64) - 1), st.booleans())
def test_bits_of_a_field(shift, width, word, signed):
    codec = BitfieldCodec(IntCodec("int", 4, signed=signed), shift, width)
    raw, mask = word.to_bytes(8, "little"), (1 << width) - 1
    value = word >> shift & mask
    negative = signed and value >> width - 1
    assert codec.decode(raw) == (value - (1 << width) if negative else value)
    assert codec.shown_bits(raw) == codec.bits() == codec.bits(exact=True) == mask << shift
    out = bytearray(b"\xff" * 8)
    out[: codec.size] = bytes(codec.size)
    codec.encode_into(out, 0, codec.decode(raw), "x")
    assert int.from_bytes(out[: codec.size], "little") == value << shift
    assert out[codec.size :] == b"\xff" * (8 - codec.size)


@given(st.integers(0, 7), st.integers(1, 8), st.integers(0, 0xFFFF))
def test_bits_of_a_bool(shift, width, word):
    codec = BitfieldCodec(BoolCodec("bool"), shift, width)
    assert codec.decode(word.to_bytes(2, "little")) is bool(word >> shift & (1 << width) - 1)
    assert codec.bits() == ((1 << width) - 1) << shift
    assert codec.bits(exact=True) == (1 << shift if width == 1 else 0)
    assert codec.shown_bits(bytes(2)) == 1 << shift


@pytest.mark.parametrize(("size", "right", "wrong"), [(4, "10.0.0.1", "::1"), (16, "::1", "10.0.0.1")])
def test_an_address_of_the_other_length(size, right, wrong):
    codec = AddressCodec("__be32", 4, signed=False)
    codec.size = size
    address = ipaddress.ip_address(right)
    assert packed_address(codec, address, "key") == address.packed
    other = ipaddress.ip_address(wrong)
    match = rf"cannot store IPv\dAddress.* in key \(__be32\): it has {20 - size} bytes, not {size}\n"
    with pytest.raises(MapValueError, match=match + f".*give an IPv{4 if size == 4 else 6} address"):
        packed_address(codec, other, "key")
    assert packed_address(codec, 7, "key") is None


@given(st.permutations([(at * 8, f"v{at}") for at in range(4)]))
def test_variables_of_a_section_are_in_order_of_their_offsets(variables):
    editor = BtfEditor()
    number = editor.add_int("long", 8)
    made = [(editor.add_variable(name, number), at, 8) for at, name in variables]
    section = editor.add_datasec(".bss", 32, made)
    raw = editor.to_bytes()
    check_soundness(raw)
    found = Btf(raw).type(section).variables()
    assert [(each.offset, each.name) for each in found] == sorted(variables)


@pytest.mark.parametrize(
    ("type_id", "why"), [(1, "section '.bss' has type 1, which is not a variable"), (9, "refers to type 9")]
)
def test_a_section_of_something_else(type_id, why):
    editor = BtfEditor()
    editor.add_int("long", 8)
    editor.add_datasec(".bss", 8, [(type_id, 0, 8)])
    with pytest.raises(LoadError, match=why):
        check_soundness(editor.to_bytes())


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1))
def test_bytes_that_must_not_be_zero(merged, wanted, said):
    """Each byte gets one bit, unless it has one, or other members determine all of it."""
    made = _with_set_bytes(merged, wanted, said)
    numbers = (n.to_bytes(4, "little") for n in (merged, wanted, said, made))
    for before, want, fixed, after in zip(*numbers, strict=True):
        if want and not before and fixed != 0xFF:
            assert after.bit_count() == 1
            assert not after & fixed
        else:
            assert after == before


@pytest.mark.parametrize("offset", [4, 5, 99])
def test_a_string_beyond_the_strings(offset):
    strings = StringTable()
    strings.offset("ab")
    btf = Btf(to_section(b"", strings) + b"more\0")
    assert (btf.string(0), btf.string(1), btf.string(2), btf.string(3)) == ("", "ab", "b", "")
    with pytest.raises(LoadError, match=f"string offset {offset} is outside the string section"):
        btf.string(offset)


@given(st.binary(max_size=8), st.lists(NAMES, max_size=3))
def test_the_header_is_that_of_version_1(types, texts):
    strings = StringTable()
    offsets = [strings.offset(text) for text in texts]
    raw = to_section(types, strings)
    sizes = (0, len(types), len(types), len(bytes(strings)))
    assert struct.unpack_from("=HBBIIIII", raw) == (0xEB9F, 1, 0, 24, *sizes)
    assert raw[24:] == types + bytes(strings)
    assert [raw[24 + len(types) + at :].partition(b"\0")[0].decode() for at in offsets] == texts


@pytest.mark.parametrize("kind", range(20, 32))
def test_an_unknown_kind(kind):
    types = struct.pack("=III", 0, kind << 24, 0)
    with pytest.raises(LoadError, match=f"type 1 has the unknown kind {kind}"):
        check_soundness(to_section(types, StringTable()))


def struct_of(elements):
    """Returns the codec of a struct; its elements are (name, type as `BtfWriter` has added it, size)."""
    writer, members, at = BtfWriter(), [], 0
    for name, add, size in elements:
        members.append(Member(name, add(writer), at * 8, 0))
        at += size
    made = writer.add_struct(Kind.STRUCT, "s", at, members)
    return Codecs(Btf(writer.to_bytes())).get(made)


def boolean(writer):
    return writer.add_int("bool", 1, 4)


def unsigned(writer):
    return writer.add_int("unsigned", 4, 0)


@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_what_a_struct_shows(kinds):
    """A number shows all bits. A bool shows one, because any other byte is true, too."""
    sizes = [1 if is_bool else 4 for is_bool in kinds]
    codec = struct_of((f"m{i}", boolean if size == 1 else unsigned, size) for i, size in enumerate(sizes))
    shown, at = 0, 0
    for size in sizes:
        shown |= (1 if size == 1 else 0xFFFFFFFF) << at * 8
        at += size
    assert codec.shown_bits(b"x" + bytes(codec.size), 1) == shown


@given(st.integers(1, 6), st.integers(0, 7))
def test_padding_of_a_record_that_ends_in_an_array(count, padding):
    """Nobody knows whether the last bytes were sent. In an array they count as sent."""

    def array(writer):
        return writer.add_array(unsigned(writer), 8)

    codec = struct_of([("head", unsigned, 4), ("array", array, 32)])
    record = shortened(codec, 4 + 4 * count, padding).decode(bytes(3) + b"\1" + b"\0\0\0\2" * count)
    assert (record["head"], list(record["array"])) == (1 << 24, [2 << 24] * count)


def test_neighbouring_unions_each_have_a_value():
    writer = BtfWriter()
    number, members = writer.add_int("unsigned", 4, 0), []
    for i in range(4):
        either = [Member(f"a{i}", number, 0, 0), Member(f"b{i}", number, 0, 0)]
        members.append(Member("", writer.add_struct(Kind.UNION, "", 4, either), i * 32, 0))
    writer.add_struct(Kind.STRUCT, "s", 16, members)
    codec = Codecs(Btf(writer.to_bytes())).get(len(writer))
    raw = struct.pack("=IIII", 1, 2, 3, 4)
    assert codec.encode((1, 2, 3, 4), "s") == raw
    assert codec.encode({"a0": 1, "b1": 2, "a2": 3, "b3": 4}, "s") == raw
    assert codec.decode(raw) == {"b0": 1, "a1": 2, "b2": 3, "a3": 4}


def test_half_of_a_64_bit_enum_has_no_names():
    """clang before 15 writes it so: the kind of a 32-bit enum, with 8 bytes."""
    writer = BtfWriter()
    writer.add_enum("large", 4, [("ONE", 1)])
    raw = bytearray(writer.to_bytes())
    struct.pack_into("=I", raw, 24 + 8, 8)
    btf = Btf(bytes(raw))
    assert btf.type(1).is_truncated_enum
    codec = Codecs(btf).get(1)
    assert codec.decode(struct.pack("=q", 1 << 32)) == 1 << 32
    with pytest.raises(MapValueError, match="its names are not known: clang before 15"):
        codec.encode("ONE", "key")
    writer = BtfWriter()
    writer.add_enum("large", 8, [("ONE", 1)])
    writer.add_enum("small", 4, [("ONE", 1)])
    assert [each.is_truncated_enum for each in Btf(writer.to_bytes())] == [False, False]


@given(
    st.sampled_from([1, 2, 4, 8]), st.booleans(), st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=3)
)
def test_numpy_arrays_of_other_integers(size, signed, numbers):
    np = pytest.importorskip("numpy")
    codec = IntCodec("number", size, signed=signed)
    first = next((n for n in numbers if not codec.minimum <= n <= codec.maximum), None)
    given_array = np.array(numbers, np.int64)
    if first is None:
        raw = bytes(from_array(given_array, codec, "value"))
        assert [codec.decode(raw, at) for at in range(0, len(raw), size)] == numbers
    else:
        with pytest.raises(MapOverflowError, match=f"cannot store {first}\\b"):
            from_array(given_array, codec, "value")


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_numbers_of_each_size(size):
    writer = BtfWriter()
    writer.add_int("number", size, 1)
    codec = Codecs(Btf(writer.to_bytes())).get(1)
    assert type(codec) is (WideIntCodec if size == 16 else IntCodec)
    assert (codec.size, codec.signed, codec.decode(b"\xff" * size)) == (size, True, -1)


def test_a_swapped_key_has_all_its_fields_swapped_that_differ():
    wanted = {"port": 80, "count": 1, "kind": 3}
    assert swapped_key(wanted, [{"port": 0x5000, "count": 2, "kind": 3}]) is None
    found = swapped_key(wanted, [{"port": 7}, {"port": 0x5000, "count": 0x100, "kind": 3}])
    assert found.startswith(".port: 20480 is 80 with its bytes swapped")
    assert swapped_key(wanted, [wanted]) is None


def test_a_key_with_two_fields_in_the_other_order_is_found():
    wanted = {"from": 1, "to": 2, "port": 80}
    there = {"from": 2, "to": 1, "port": 80}
    found = swapped_key(wanted, [{"from": 3, "to": 1, "port": 80}, there])
    assert found == "a key is there in which .from and .to have each other's values"
    assert swapped_key(wanted, [{**there, "port": 81}]) is None
    assert swapped_key(wanted, [{"from": 2, "to": 2, "port": 80}]) is None


def test_keys_that_differ_only_in_their_padding_are_not_equal():
    codec = struct_of([("a", boolean, 1), ("b", unsigned, 4)])
    first, second = (codec.listed(bytes([number, 1, 0, 0, 0])) for number in (1, 2))
    assert first.a is second.a is True
    assert first != second
    assert first == codec.listed(bytes([1, 1, 0, 0, 0]))
