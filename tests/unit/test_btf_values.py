"""Tests values to bytes and back, for each kind of type, with an object that clang compiled."""

import copy
import enum

import pytest

from pytest_bpfmaps import (
    LoadError,
    MapError,
    MapOverflowError,
    MapTypeError,
    MapValueError,
    NameLookupError,
)
from pytest_bpfmaps.btf import Btf, Codecs, Kind
from pytest_bpfmaps.btf.enums import EnumCodec
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler

TYPES = """
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

enum color { RED, GREEN = 5, BLUE = -3 };
enum reserved { mro = 1 };
typedef const volatile __u16 port_t;

struct point { __s16 x, y; };

struct all {
    __u8 u8; __s8 s8; __u16 u16; __s16 s16; __u32 u32; __s32 s32; __u64 u64; __s64 s64;
    __int128 wide;
    unsigned __int128 uwide;
    bool flag;
    char letter;
    double number;
    float small;
    port_t port;
    enum color color;
    char comm[16];
    char names[2][4];
    __u8 mac[6];
    bool bits[3];
    __u32 counts[3];
    __u8 grid[2][2];
    int matrix[2][3];
    struct point points[2];
    struct point corner;
    void *pointer;
    int three:3;
    unsigned int seven:7;
    enum color tint:4;
    unsigned long long far:40;
    union { __u32 v4; __u8 v6[16]; };
    struct { int inner; };
    union { int i; float f; } either;
};

struct locked { struct bpf_spin_lock lock; __u32 count; };
struct odd { int from; enum reserved kind; };

struct all all;
struct locked locked;
struct odd odd;
const volatile int limit = 7;
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    return compile_types(TYPES, tmp_path_factory.mktemp("types"))


def compile_types(code, folder):
    from elftools.elf.elffile import ELFFile

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPFMAPS_CACHE", str(folder))
        path = LocalCompiler().compile(CompileRequest(code=code, cflags=("-Wno-unused",)))
    with path.open("rb") as file:
        return Codecs(Btf(ELFFile(file).get_section_by_name(".BTF").data()))


@pytest.fixture(scope="module")
def struct_all(codecs):
    return codecs.struct("all")


WHERE = "map 'm' value"
LIMITS = {
    "u8": (0, 2**8 - 1),
    "s8": (-(2**7), 2**7 - 1),
    "u16": (0, 2**16 - 1),
    "s16": (-(2**15), 2**15 - 1),
    "u32": (0, 2**32 - 1),
    "s32": (-(2**31), 2**31 - 1),
    "u64": (0, 2**64 - 1),
    "s64": (-(2**63), 2**63 - 1),
    "wide": (-(2**127), 2**127 - 1),
    "uwide": (0, 2**128 - 1),
    "three": (-4, 3),
    "seven": (0, 127),
    "far": (0, 2**40 - 1),
}


def there_and_back(codec, value):
    return codec.decode(codec.encode(value, WHERE))


@pytest.mark.parametrize("field", LIMITS)
def test_integers_of_every_width(struct_all, field):
    low, high = LIMITS[field]
    for number in (low, high, 0, 1):
        assert there_and_back(struct_all, {field: number})[field] == number
    for number in (low - 1, high + 1):
        with pytest.raises(
            MapOverflowError,
            match=rf"(?s)cannot store {number} in map 'm' value\.{field}.*from {low} to {high}",
        ):
            struct_all.encode({field: number}, WHERE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flag", True),
        ("letter", 65),
        ("number", 2.5),
        ("small", -0.5),
        ("port", 443),
        ("comm", "bash"),
        ("comm", "sixteen chars ok"),
        ("comm", "grüße"),
        ("names", ["ab", "cdef"]),
        ("mac", b"\1\2\3\4\5\6"),
        ("bits", [True, False, True]),
        ("counts", [1, 2, 3]),
        ("grid", [b"\1\2", b"\3\4"]),
        ("matrix", [[1, 2, 3], [-4, -5, -6]]),
        ("points", [{"x": 1, "y": -1}, {"x": 2, "y": -2}]),
        ("corner", {"x": -3, "y": 3}),
        ("pointer", 0xFFFF_8880_0000_1000),
        ("v4", 0x0100007F),
        ("inner", -9),
    ],
)
def test_there_and_back(struct_all, field, value):
    assert there_and_back(struct_all, {field: value})[field] == value


def test_text_ends_at_the_first_nul_and_keeps_odd_bytes(struct_all):
    assert there_and_back(struct_all, {"comm": b"a\0b"}).comm == "a"
    odd = there_and_back(struct_all, {"comm": b"\xff!"}).comm
    assert there_and_back(struct_all, {"comm": odd}).comm == odd


def test_enums_are_members_and_take_names(struct_all):
    for given in ("GREEN", 5):
        color = there_and_back(struct_all, {"color": given}).color
        assert isinstance(color, enum.IntEnum)
        assert (color.name, color) == ("GREEN", 5)
    assert there_and_back(struct_all, {"color": "BLUE"}).color == -3
    assert there_and_back(struct_all, {"color": 77}).color == 77
    assert there_and_back(struct_all, {"tint": "GREEN"}).tint.name == "GREEN"
    with pytest.raises(MapValueError, match=r"(?s)no such name.*did you mean 'GREEN'"):
        struct_all.encode({"color": "GREN"}, WHERE)


def test_an_enumerator_that_python_reserves(codecs):
    assert there_and_back(codecs.struct("odd"), {"kind": "mro"}).kind == 1


def test_fields_that_python_reserves_are_items(codecs):
    assert there_and_back(codecs.struct("odd"), {"from": 3})["from"] == 3


def test_bitfields_do_not_disturb_each_other(struct_all):
    value = there_and_back(struct_all, {"three": -1, "seven": 100, "tint": "GREEN", "far": 2**39 + 1})
    assert (value.three, value.seven, value.tint, value.far) == (-1, 100, 5, 2**39 + 1)


def test_unions_show_each_alternative(struct_all):
    value = there_and_back(struct_all, {"v4": 0x04030201, "either": {"f": 1.5}})
    assert value.v6 == b"\1\2\3\4" + bytes(12)
    assert value.either.f == 1.5
    assert value.either == {"f": 1.5}
    assert value.either == {"i": value.either.i, "f": 1.5}
    assert value.either != {"f": 2.5}


def test_missing_fields_are_zero(struct_all):
    assert struct_all.encode({}, WHERE) == bytes(struct_all.size)


def test_spin_locks_are_hidden(codecs):
    value = there_and_back(codecs.struct("locked"), {"count": 2})
    assert repr(value) == "{'count': 2}"


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({"u32": "1"}, MapTypeError, "cannot store '1' in map 'm' value.u32 (__u32): it is str, not an int"),
        ({"u32": 1.5}, MapTypeError, "it is float, not an int"),
        ({"u33": 1}, MapValueError, "did you mean 'u32'"),
        ({"comm": "x" * 17}, MapValueError, "at most 16 bytes"),
        ({"comm": 5}, MapTypeError, "it is int, not a str or bytes"),
        ({"mac": b"1234567"}, MapValueError, "give at most 6 bytes"),
        ({"counts": [1, 2]}, MapValueError, "the array holds 3"),
        ({"counts": 7}, MapTypeError, "it is int, not a list"),
        ({"points": [(0, 0), {"x": 2**15}]}, MapOverflowError, "value.points[1].x (__s16)"),
        ({"number": "2"}, MapTypeError, "not a float"),
        ({"small": 1e300}, MapOverflowError, "cannot store 1e+300"),
        (b"abc", MapValueError, "cannot store b'abc' in map 'm' value (struct all): it has 3 bytes, not "),
        (7, MapTypeError, "not a mapping, a record, a tuple of fields, or "),
        ((1, 2), MapTypeError, "tuple in field order: u8, s8, u16"),
    ],
)
def test_what_does_not_fit_is_refused(struct_all, value, error, message):
    with pytest.raises(error) as caught:
        struct_all.encode(value, WHERE)
    assert message in str(caught.value)
    assert isinstance(caught.value, MapError)
    assert caught.value.errno


class TestRecord:
    @pytest.fixture
    def point(self, codecs):
        return there_and_back(codecs.struct("point"), (3, -4))

    def test_reads_like_an_object_a_mapping_and_a_tuple(self, point):
        x, y = point
        assert (x, y) == (point.x, point["y"]) == (3, -4)
        assert len(point) == 2

    def test_equals_mappings_tuples_and_records(self, codecs, point):
        assert point == {"x": 3, "y": -4} == point
        assert point == (3, -4)
        assert point == there_and_back(codecs.struct("point"), {"x": 3, "y": -4})
        assert point != {"x": 3}
        assert point != {"x": 3, "y": -4, "z": 0}
        assert point != {"x": 3, "y": 4}
        assert point != 3

    def test_is_hashable_like_a_tuple(self, point):
        assert {point: "here"}[(3, -4)] == "here"

    def test_prints_like_a_dict(self, point):
        assert repr(point) == "{'x': 3, 'y': -4}"

    def test_is_immutable(self, point):
        with pytest.raises(AttributeError, match="immutable"):
            point.x = 5
        with pytest.raises(AttributeError, match=r"fields\['x'\] = …; m\[key\] = fields"):
            point["x"] = 5
        with pytest.raises(AttributeError):
            del point.x
        with pytest.raises(AttributeError):
            del point["x"]
        assert copy.deepcopy(point) is point

    def test_a_wrong_name_has_the_closest_ones(self, struct_all):
        value = struct_all.decode(bytes(struct_all.size))
        for read in (lambda: value.colour, lambda: value["colour"]):
            with pytest.raises(NameLookupError, match="did you mean 'color'"):
                read()
        assert not hasattr(value, "colour")


def test_globals_are_variables_of_their_section(codecs):
    (data,) = (t for t in codecs.btf if t.kind is Kind.DATASEC and t.name == ".rodata")
    assert [v.name for v in data.variables()] == ["limit"]


def test_an_unknown_struct_has_the_closest_ones(codecs):
    with pytest.raises(NameLookupError, match=r"(?s)no struct 'pint'.*did you mean 'point'"):
        codecs.struct("pint")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "too few for a header"),
        (b"\x7fELF" + bytes(100), "magic number"),
        (b"\xeb\x9f" + bytes(30), "big-endian"),
        (b"\x9f\xeb\x01\0\x18\0\0\0" + b"\0\0\0\0\xff\0\0\0\0\0\0\0\0\0\0\0", "longer than the data"),
    ],
)
def test_what_is_not_btf_is_refused(raw, message):
    with pytest.raises(LoadError, match=message):
        Btf(raw)


FLEXIBLE = """
#include <linux/types.h>
struct text { __u8 len; char data[]; };
struct counts { __u32 n; struct { __u16 a, b; } at[]; };
struct outer { __u32 id; struct text text; };
struct middle { struct text text; __u32 after; };
struct text text; struct counts counts; struct outer outer; struct middle middle;
"""


class TestFlexibleArrays:
    @pytest.fixture(scope="class")
    @classmethod
    def flexible(cls, tmp_path_factory):
        return compile_types(FLEXIBLE, tmp_path_factory.mktemp("flexible"))

    def test_takes_the_rest_of_a_longer_record(self, flexible):
        assert flexible.struct("text").decode_rest(b"\5hello").data == "hello"
        assert flexible.struct("counts").decode_rest(bytes([2, 0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 9])) == {
            "n": 2,
            "at": [{"a": 1, "b": 2}, {"a": 3, "b": 4}],
        }
        assert flexible.struct("outer").decode_rest(b"\1\0\0\0\2hi").text.data == "hi"

    def test_is_empty_where_there_is_no_more(self, flexible):
        assert flexible.struct("text").decode(b"\5hello", 0) == {"len": 5, "data": ""}
        assert flexible.struct("middle").decode_rest(bytes(8)).text.data == ""

    def test_is_written_as_long_as_it_is(self, flexible):
        counts = flexible.struct("counts")
        raw = counts.encode_record({"n": 2, "at": [(1, 2), (3, 4)]}, WHERE)
        assert raw == bytes([2, 0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0])
        assert counts.encode_record(counts.decode_rest(raw), WHERE) == raw

    def test_cannot_be_written_where_the_size_is_fixed(self, flexible):
        for name, value in (("text", {"data": "x"}), ("counts", {"at": [(1, 2)]})):
            with pytest.raises(MapValueError, match="a flexible array has no room here"):
                flexible.struct(name).encode(value, WHERE)
        with pytest.raises(MapValueError, match=r"value.text.data .*a flexible array has no room here"):
            flexible.struct("middle").encode_record({"text": {"data": "x"}}, WHERE)
        assert flexible.struct("text").encode({"len": 1}, WHERE) == b"\1"


def test_an_unsigned_enum_with_a_large_value_stays_unsigned(tmp_path):
    code = "enum big { BIG = 0xffffffff }; enum sign { MINUS = -1 }; enum big big; enum sign sign;"
    codecs = compile_types(code, tmp_path)
    big, sign = (codecs.get(codecs.btf.find(n, Kind.ENUM).id) for n in ("big", "sign"))
    assert sign.decode(b"\xff" * 4) == -1
    # clang before 16 does not record the sign; a number that could be -1 then counts as -1
    assert big.decode(b"\xff" * 4) == (0xFFFFFFFF if codecs.btf.has_enum_signs else -1)


def test_the_names_of_an_enum_are_found_without_all_other_types(tmp_path):
    """A kernel has 100,000 types, and decoding them takes an emulated guest a minute."""
    code = (
        "enum small { NONE, ONE }; enum sign { MINUS = -1 }; enum small small; enum sign sign; struct x *x;"
    )
    btf = compile_types(code, tmp_path).btf
    small = btf.find("small", Kind.ENUM)
    vars(btf).pop("has_enum_signs", None)
    btf._types.clear()
    assert small.enumerators() == [("NONE", 0), ("ONE", 1)]
    assert not btf._types


def test_an_enum_of_damaged_types_keeps_the_names_that_can_be():
    codec = EnumCodec("enum e", 4, False, [("", 0), ("_\n_", 1), ("mro", 2), ("fine", 3)])
    assert [codec.from_int(number) for number in range(4)] == [0, 1, 2, 3]
    assert codec.from_int(3) == "fine"
    assert type(codec.from_int(1)) is int
