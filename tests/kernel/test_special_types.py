"""Tests kernel fields in arrays, 64-bit enums, typedefs, signed bytes and addresses, and comparing them."""

import ipaddress
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from pytest_bpfmaps import MapTypeError, MapValueError
from pytest_bpfmaps.btf import Btf, Codecs
from pytest_bpfmaps.btf.dwarf import local_types

IP4, IP6 = ipaddress.ip_address("10.1.2.3"), ipaddress.ip_address("fe80::1:2")
DEBIAN_CLANG = shutil.which("clang")


class TestKernelFields:
    """Older kernels do not know these fields, so the test opens the object and does not load it."""

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, bpf_session):
        return bpf_session.open(
            None,
            code="""
            #define bpf_refcount bpf_refcount_of_newer_headers
            #include <linux/bpf.h>
            #undef bpf_refcount
            #include <bpf/bpf_helpers.h>
            #undef __kptr
            #define __kptr __attribute__((btf_type_tag("kptr")))
            struct task_struct;
            struct bpf_refcount { __u32 :32; } __attribute__((aligned(4)));
            struct inner { struct task_struct __kptr *task; __u32 x; };
            struct value {
                __u32 a;
                struct task_struct __kptr *many[3];
                struct task_struct __kptr *grid[2][2];
                struct bpf_timer timers[2];
                struct bpf_spin_lock lock;
                struct bpf_refcount refs[1];
                struct inner in[2];
                struct task_struct *plain[2];
                __u32 b;
            };
            struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
                     __type(value, struct value); } values SEC(".maps");
            struct bpf_spin_lock lock SEC(".data.locked");
            struct bpf_spin_lock locks[2] SEC(".data.locked");
            struct task_struct __kptr *held SEC(".data.locked");
            int counter SEC(".data.locked") = 5;
            """,
        )

    @pytest.fixture
    def codec(self, opened):
        return opened.attempt.codecs.struct("value")

    def test_arrays_of_them_are_hidden(self, codec):
        plain = {"a": 0, "in": [{"x": 0}, {"x": 0}], "plain": [0, 0], "b": 0}
        assert codec.decode(bytes(codec.size)) == plain
        assert repr(codec.decode(bytes(codec.size))) == repr(plain)

    @pytest.mark.parametrize("name", ["many", "grid", "timers", "lock", "refs"])
    def test_and_cannot_be_written(self, codec, name):
        with pytest.raises(MapValueError, match=r"(?s)the kernel keeps this field for itself.*leave it out"):
            codec.encode({"a": 1, name: [7]}, "value")
        with pytest.raises(MapValueError, match="the kernel keeps this field for itself"):
            codec.encode({"in": [{"task": 7}, {}]}, "value")

    def test_variables_too(self, opened):
        assert {"lock", "locks", "held"}.isdisjoint(opened.globals)
        assert opened.globals.counter == 5


ENUMS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
enum big { SMALL = 1, WIDE = 0x100000001ULL, TOP = 0x8000000000000000ULL };
enum neg { MINUS = -1, MINLL = -0x100000000LL, PLUS = 1 };
typedef enum { LOW = 2, HIGH = 0x700000002ULL } unnamed_t;
struct value { enum big b; enum neg n; unnamed_t u; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __type(value, struct value); } m SEC(".maps");
char LICENSE[] SEC("license") = "GPL";
"""
VALUES = {
    "b": {"SMALL": 1, "WIDE": 0x100000001, "TOP": 1 << 63},
    "n": {"MINUS": -1, "MINLL": -(1 << 32), "PLUS": 1},
    "u": {"LOW": 2, "HIGH": 0x700000002},
}


@pytest.fixture(scope="module", params=["the oldest clang", "the default clang"])
def enums(request, tmp_path_factory):
    """Returns an object with 64-bit enums. The distribution's clang may write half of their values."""
    from pytest_bpfmaps.compiler import CompileRequest
    from pytest_bpfmaps.compiler.local_compiler import LocalCompiler

    folder = tmp_path_factory.mktemp("enums")
    if request.param == "the default clang":
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BPFMAPS_CACHE", str(folder))
            return LocalCompiler().compile(CompileRequest(code=ENUMS))
    source = folder / "e.bpf.c"
    source.write_text(ENUMS)
    command = [DEBIAN_CLANG or "clang", "-g", "-O2", "-target", "bpf", "-c", source, "-o", folder / "e.bpf.o"]
    subprocess.run([*command, *(f"-I{p}" for p in Path("/usr/include").glob("*-linux-gnu"))], check=True)
    return folder / "e.bpf.o"


def test_wide_enums_have_their_names(bpf, enums):
    m = bpf.load(enums).maps.m
    for field, names in VALUES.items():
        for name, number in names.items():
            m[0] = {field: name}
            assert m[0][field] == number
            assert m[0][field].name == name
            assert int(m[0][field]).to_bytes(8, "little", signed=number < 0) in bytes(m[0])
            m[0] = {field: number}
            assert m[0][field].name == name


def test_without_dwarf_no_name_stands_for_another_number(enums):
    from elftools.elf.elffile import ELFFile

    with enums.open("rb") as file:
        codecs = Codecs(Btf(ELFFile(file).get_section_by_name(".BTF").data()))
    codec = codecs.struct("value")
    for field, names in VALUES.items():
        for name, number in names.items():
            raw = codec.encode({field: number}, "value")
            assert int(codec.decode(raw)[field]) == number
            if not codecs.btf.has_truncated_enums:
                assert codec.encode({field: name}, "value") == raw
                continue
            assert getattr(codec.decode(raw)[field], "name", None) is None
            with pytest.raises(MapValueError, match=r"(?s)its names are not known.*clang 15 or later"):
                codec.encode({field: name}, "value")


TYPEDEFS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
typedef struct { __u32 pid; char what[8]; } event_t;
typedef event_t other_t;
typedef struct named { __u32 pid; __s8 deltas[4]; } named_t;
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } rb SEC(".maps");
SEC("xdp") int send(struct xdp_md *ctx)
{
    other_t event = {.pid = 3, .what = "hello"};
    named_t *named = bpf_ringbuf_reserve(&rb, sizeof(*named), 0);
    if (!named)
        return 0;
    __builtin_memset(named, 0, sizeof(*named));
    named->pid = 4;
    named->deltas[0] = -1;
    bpf_ringbuf_submit(named, 0);
    return bpf_ringbuf_output(&rb, &event, sizeof(event), 0);
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.mark.bpf_requires("ringbuf")
def test_a_struct_is_found_by_the_name_of_its_typedef(bpf):
    obj = bpf.load(code=TYPEDEFS)
    for name, fields in {
        "event_t": {"pid": 3, "what": "hello"},
        "other_t": {"pid": 3, "what": "hello"},
        "named_t": {"pid": 4, "deltas": [-1, 0, 0, 0]},
        "struct named": {"pid": 4, "deltas": b"\xff\0\0\0"},
    }.items():
        with obj.maps.rb.capture(name) as events:
            obj.programs.send.run(bytes(64))
            events.expect(fields, count=1)


def test_signed_bytes_are_numbers(bpf):
    obj = bpf.load(
        code="""
        #include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        struct value { signed char a[3]; __s8 b[2][2]; __u8 c[2]; char d[4]; };
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
                 __type(value, struct value); } m SEC(".maps");
        """
    )
    m = obj.maps.m
    m[0] = {"a": [-128, 0, 127], "b": [[1, -1], [2, -2]], "c": b"\x80\1", "d": "ab"}
    assert bytes(m[0]) == b"\x80\0\x7f\1\xff\2\xfe\x80\1ab\0\0"
    assert m[0].a == [-128, 0, 127]
    assert m[0].b == [[1, -1], [2, -2]]
    assert m[0].c == b"\x80\1"
    assert m[0] == {"a": b"\x80\0\x7f", "b": [[1, -1], b"\2\xfe"], "c": [128, 1], "d": b"ab"}
    with pytest.raises(MapValueError):
        m[0] = {"a": [1, 2]}


ADDRESSES = """
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_helpers.h>
struct value { __be32 be; __u8 four[4]; __u8 sixteen[16]; __be32 words[4]; struct in6_addr in6;
               struct in_addr in; __be16 port; __u32 plain; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __be32);
         __type(value, struct value); } m SEC(".maps");
"""
GIVEN = {"be": IP4, "four": IP4, "sixteen": IP6, "words": IP6, "in6": IP6, "in": IP4}


def test_addresses_are_written_and_compared(bpf):
    m = bpf.load(code=ADDRESSES).maps.m
    m[IP4] = GIVEN
    number = int.from_bytes(IP4.packed, "little")
    assert list(m) == [number]  # bpftool shows the same
    assert m[IP4].be == number
    assert bytes(m[IP4]) == IP4.packed * 2 + IP6.packed * 3 + IP4.packed + bytes(8)
    rest = {"port": 0, "plain": 0}
    assert m[IP4] == {**GIVEN, **rest}
    assert m == {IP4: {**GIVEN, **rest}}
    for name, address in GIVEN.items():
        assert m[IP4] != {**GIVEN, **rest, name: address + 1}
        if name != "sixteen":  # 16 bytes often have an IPv4 address in the first four
            with pytest.raises((MapTypeError, MapValueError)):
                m[IP4] = {name: IP6 if address == IP4 else IP4}
    with pytest.raises(MapTypeError, match=r"(?s)does not say in which byte order.*declare it as __be32"):
        m[IP4] = {"plain": IP4}
    m[IP4] = {"plain": socket.htonl(int(IP4))}
    assert bytes(m[IP4])[-4:] == IP4.packed


def test_an_address_is_compared_with_the_bytes_of_a_number(bpf):
    m = bpf.load(
        code="""
        #include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        struct value { __u32 v4; unsigned __int128 v6; };
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32);
                 __type(value, struct value); } m SEC(".maps");
        """
    ).maps.m
    m[0] = {"v4": socket.htonl(int(IP4)), "v6": int.from_bytes(IP6.packed, "little")}
    m[1] = {"v4": int(IP4), "v6": int(IP6)}
    assert m[0] == {"v4": IP4, "v6": IP6}
    assert m[1] != {"v4": IP4, "v6": IP6}
    assert m[0] != {"v4": IP4 + 1, "v6": IP6}
    assert m[0] != {"v4": IP6, "v6": IP4}
    with pytest.raises(AssertionError, match=r"167838211 is 10.1.2.3 in the host's byte order.*bpf_ntohl"):
        assert m[1] == {"v4": IP4, "v6": int(IP6)}


def test_a_failed_comparison_says_that_bytes_are_swapped(bpf):
    m = bpf.load(code=ADDRESSES).maps.m
    m[1] = {"port": socket.htons(2000), "plain": socket.htonl(0x0A010203)}
    with pytest.raises(AssertionError, match=r"53255 is 2000 with its bytes swapped.*bpf_ntohs\(\)"):
        assert m[1].port == 2000
    with pytest.raises(AssertionError, match=r"\.port: 53255, expected 2000 \(53255 is 2000 with its bytes"):
        assert m[1] == {**m[1]._asdict(), "port": 2000}
    with pytest.raises(
        AssertionError, match=r"\.plain 50462986, expected 167838211 .*socket.htonl\(167838211\)"
    ):
        assert m == {1: {**m[1]._asdict(), "plain": 0x0A010203}}
    assert socket.htons(2000) == 53255


def test_a_comparison_of_equal_values_does_not_claim_a_change(bpf):
    m = bpf.load(code=ADDRESSES).maps.m
    m[1] = {"plain": 3}
    same = m.snapshot()
    for left, right in ((m, same), (same, same), (m[1], m[1]._asdict())):
        with pytest.raises(AssertionError) as caught:
            assert not (left == right)  # noqa: SIM201
        assert "they are equal" in str(caught.value)
        assert "changed" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::pytest_bpfmaps.errors.UnknownNameWarning")
def test_enums_by_their_names(bpf):
    obj = bpf.load(
        code="""
        #include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        enum verdict { DENIED, ALLOWED = 7 };
        struct value { enum verdict verdict; enum verdict two[2]; };
        struct { __uint(type, BPF_MAP_TYPE_PERCPU_HASH); __uint(max_entries, 4); __type(key, enum verdict);
                 __type(value, __u64); } counts SEC(".maps");
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
                 __type(value, struct value); } values SEC(".maps");
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32);
                 __type(value, enum verdict); } verdicts SEC(".maps");
        struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, __u32);
                 __type(value, enum verdict); } by_cpu SEC(".maps");
        """
    )
    maps = obj.maps
    maps.counts["ALLOWED"] = 2
    cpus = len(maps.counts["ALLOWED"])
    assert maps.counts.sum()["ALLOWED"] == 2 * cpus
    assert maps.counts.sum() == {"ALLOWED": 2 * cpus} == maps.counts.sum()
    assert "ALLOWED" in maps.counts.sum()
    assert "DENIED" not in maps.counts.sum()
    assert maps.counts.sum().get("DENIED", 3) == 3
    assert maps.counts == {"ALLOWED": [2] * cpus}
    maps.values[0] = {"verdict": "ALLOWED", "two": ["DENIED", 7]}
    assert maps.values[0] == {"verdict": "ALLOWED", "two": ["DENIED", "ALLOWED"]}
    assert maps.values[0] != {"verdict": "DENIED", "two": ["DENIED", "ALLOWED"]}
    assert maps.values[0] != {"verdict": "ALLOWED", "two": ["DENIED", "DENIED"]}
    assert maps.values[0] != {"verdict": "OTHER", "two": ["DENIED", "ALLOWED"]}
    maps.verdicts[1] = "ALLOWED"
    assert maps.verdicts == {0: "DENIED", 1: "ALLOWED"}
    assert maps.verdicts == ["DENIED", "ALLOWED"]
    assert maps.verdicts >= {1: "ALLOWED"}
    assert maps.verdicts != {0: "ALLOWED", 1: "ALLOWED"}
    assert maps.by_cpu == {0: ["DENIED"] * cpus}
    assert maps.by_cpu != {0: ["ALLOWED"] * cpus}


def test_local_types_of_an_object_have_its_wide_enums(enums):
    names = [t.name for t in Btf(local_types(enums) or b"")]
    assert {"big", "neg"} <= set(names)
