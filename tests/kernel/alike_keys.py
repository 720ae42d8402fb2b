"""Keys with equal values and different bytes, and maps with such keys."""

import pytest

from pytest_bpfmaps.libbpf import ffi, lib

PROLOGUE = """
struct flow { __u32 ip; __u16 port; };
struct bits { __u8 a:3; __u8 b:2; };
struct deep { struct { char name[3]; __u32 n; } in[1]; _Bool on; };
struct choice { union { struct { __u8 kind; __u32 n; }; __u8 first; }; };
struct prefix { __u32 prefixlen; __u8 zone; __u16 net; };
"""
# keys of each type with equal values
ALIKE = {
    "struct flow": (b"\1\0\0\0\x50\0\0\0", b"\1\0\0\0\x50\0\x55\x55", b"\1\0\0\0\x50\0\0\1"),
    "char[8]": (b"cat\0\0\0\0\0", b"cat\0UUUU", b"cat\0\0\0\0\1"),
    "_Bool": (b"\1", b"\2", b"\xff"),
    "double": (bytes(8), bytes(7) + b"\x80"),
    "struct bits": (b"\x09", b"\x29"),
    "struct deep": (b"ab\0\0\5\0\0\0\1\0\0\0", b"ab\0\7\5\0\0\0\1\0\0\0", b"ab\0\0\5\0\0\0\2\0\0\0"),
    "struct choice": (b"\1\0\0\0\2\0\0\0", b"\1\7\7\7\2\0\0\0"),
    "struct flow[2]": (bytes(16), bytes(15) + b"\1"),
    "char[2][4]": (b"ab\0\0cd\0\0", b"ab\0\0cd\0\1"),
}


@pytest.fixture
def filled(make_map):
    """Makes a map with these keys; the n-th has the value n. It writes bytes, without the codecs."""

    def fill(key, raws, type="hash", max_entries=64, **options):
        name, _, rest = key.partition("[")
        prologue = PROLOGUE + f"typedef {name} key_t_{'[' + rest if rest else ''};"
        m = make_map(type, "key_t_", prologue=prologue, max_entries=max_entries, **options)
        for n, raw in enumerate(raws):
            write(m, raw, n)
        return m

    return fill


def write(m, raw, n):
    assert len(raw) == m.key_size
    value = n.to_bytes(8, "little") * (m._value_bytes // 8)
    assert lib.bpf_map_update_elem(m.fd, ffi.from_buffer(raw), ffi.from_buffer(value), 0) == 0
