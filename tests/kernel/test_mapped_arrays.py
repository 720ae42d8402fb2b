"""Tests that arrays with BPF_F_MMAPABLE, which are read from memory, have the kernel's values."""

import errno
import random

import pytest

from pytest_bpfmaps import MapError

CODE = """
struct {{ __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, {count}); __uint(map_flags, {flags});
         __type(key, __u32); __type(value, value_t); }} the_map SEC(".maps");
"""


@pytest.mark.parametrize("type", ["__u8", "__u16", "__u32", "__u64", "char", "struct odd", "struct long_"])
@pytest.mark.parametrize("count", [1, 3, 513])
def test_as_by_the_kernels_commands(load_code, type, count):
    types = f"""
    struct odd {{ __u32 a; __u16 b; char c[6]; }};
    struct long_ {{ char text[13]; }};
    typedef {type} value_t;
    """
    m = load_code(types + CODE.format(count=count, flags="BPF_F_MMAPABLE")).maps.the_map
    chosen = random.Random(count)
    raws = [chosen.randbytes(m.value_size) for _ in range(count)]
    for index, raw in enumerate(raws):
        m[index] = raw if m.value_size not in (1, 2, 4, 8) else m._value.decode(raw)
    assert m._read_memory() == m._lookup_batches()
    assert m._read_memory().values == b"".join(raws)
    seen = m.snapshot()
    assert len(seen) == count
    assert all(seen[index] == m[index] for index in range(count))


def test_a_frozen_one(load_code):
    m = load_code("typedef __u32 value_t;" + CODE.format(count=3, flags="BPF_F_MMAPABLE")).maps.the_map
    m[1] = 5
    m.freeze()
    assert m._read_memory() is not None
    assert m == [0, 5, 0]


def test_one_that_user_space_may_not_read(bpf):
    """The kernel does not allow to map it, either."""
    write_only = 1 << 4
    m = bpf.create_map("array", value="u32", max_entries=2, flags=1 << 10 | write_only)
    assert m._read_memory() is None
    with pytest.raises(MapError) as caught:
        m.snapshot()
    assert caught.value.errno == errno.EPERM


def test_others_are_not_mapped(load_code):
    m = load_code("typedef __u32 value_t;" + CODE.format(count=3, flags=0)).maps.the_map
    assert m._read_memory() is None
    assert m == [0, 0, 0]
