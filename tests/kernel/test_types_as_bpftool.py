"""Tests random C types with random bytes against bpftool, which shares no code with this package."""

import json
import re
import subprocess
from random import Random

import c_types
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from installed import installed

from pytest_bpfmaps.btf import Record
from pytest_bpfmaps.btf.enums import BitfieldCodec, EnumCodec
from pytest_bpfmaps.libbpf import ffi, lib

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define CONST const
enum sign { MINUS = -1 };
enum sign sign;
"""
MAP = """
struct {{ __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 8); __type(key, __u32);
         __type(value, struct {name}); }} m_{name} SEC(".maps");
"""


@pytest.fixture
def bpftool():
    """Returns a function for the values of an array in ``bpftool map dump``, with unnamed members merged."""
    command = installed("bpftool")

    def dump(m):
        done = subprocess.run(
            [command, "-j", "map", "dump", "id", str(m.id)], capture_output=True, check=True
        )
        text = re.sub(r"(?<!\\)((?:\\\\)*)\\'", r"\1'", done.stdout.decode(errors="surrogateescape"))
        elements = json.loads(text, object_pairs_hook=merged, strict=False)
        return [element["formatted"]["value"] for element in elements]

    return dump


def merged(pairs):
    """Returns a JSON object with its unnamed members merged into it. There may be several."""
    made = {}
    for name, value in pairs:
        made |= value if name == "" else {name: value}
    return made


def agree(codec, ours, theirs):
    """Returns whether a value equals the one that bpftool shows."""
    if isinstance(ours, Record):
        fields = ours.__codec__.by_name
        return fields.keys() == theirs.keys() and all(
            agree(f.codec, ours[n], theirs[n]) for n, f in fields.items()
        )
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(agree, [codec.element] * len(ours), ours, theirs))
    if isinstance(codec, BitfieldCodec):
        return int(theirs, 16) == int(ours) & (1 << codec.width) - 1
    if isinstance(ours, bool):
        return theirs is ours
    if isinstance(ours, bytes):
        return theirs == list(ours)
    if isinstance(ours, str):
        if isinstance(theirs, str):
            return theirs == ours
        raw = bytes(number & 0xFF for number in theirs)  # unprintable letters are numbers
        return raw.partition(b"\0")[0] == ours.encode(errors="surrogateescape")
    if isinstance(codec, EnumCodec) and hasattr(ours, "name"):
        return theirs == ours.name
    number = int(theirs, 16) if isinstance(theirs, str) else theirs
    bits = 8 * codec.size
    return isinstance(number, int) and (number - ours) % (1 << bits) == 0


def write(m, index, raw):
    key = ffi.new("int *", index)
    assert lib.bpf_map_update_elem(m.fd, key, ffi.from_buffer(raw), 0) == 0


@pytest.mark.bpf_kernels("host")  # bpftool and the types do not depend on the kernel
@settings(
    max_examples=20,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_random_types_and_bytes(bpf, bpftool, data):
    plans = data.draw(c_types.plans(True, flexible=False, floats=False))
    code = HEAD + "".join(p.code + MAP.format(name=p.name) for p in plans)
    obj = bpf.load(code=code, cflags=("-w",))
    bytes_of = Random(data.draw(st.integers(0, 1 << 32)))  # hypothesis itself gives up at 8 KiB of choices
    for plan in plans:
        m = obj.maps[f"m_{plan.name}"]
        size = m.value_size
        raws = [bytes_of.randbytes(size), bytes(bytes_of.choices((0, 1, 65, 255), k=size))]
        for place, raw in zip((0, 4), raws, strict=True):
            write(m, place, raw)
            record = m[place]
            assert bytes(record) == raw
            for i, shape in enumerate((record._asdict(), tuple(record), record), place + 1):
                write(m, i, raw[::-1])
                m[i] = shape  # each form writes the same bytes
                assert repr(m[i]) == repr(record), (shape, plan.code)
        for i, shown in enumerate(bpftool(m)):  # one call, because bpftool takes long to start
            assert agree(None, m[i - i % 4], shown), (i, m[i], shown, plan.code)
    obj.close()
