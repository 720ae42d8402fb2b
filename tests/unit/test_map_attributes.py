"""Tests flags of a map's commands, and the types that the definition of a map gives it."""

import pytest

from pytest_bpfmaps import MapOverflowError, MapTypeError
from pytest_bpfmaps.btf import Btf, Codecs
from pytest_bpfmaps.btf.map_definitions import MapDefinition
from pytest_bpfmaps.btf.writer import BtfWriter
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.maps import create_errors
from pytest_bpfmaps.maps.flags import flags_of
from pytest_bpfmaps.maps.foreign_types import _with_types
from pytest_bpfmaps.maps.info import MapInfo


def test_flags_of_64_bits():
    for flags in (0, 1, 1 << 63, (1 << 64) - 1):
        assert flags_of(flags) == flags
    for flags in (-1, 1 << 64):
        with pytest.raises(MapOverflowError, match=f"cannot use flags {flags}: the kernel takes 64 bits"):
            flags_of(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("BPF_NOEXIST", "they are str, not a number(.|\\n)*from pytest_bpfmaps import BPF_NOEXIST; flags="),
        ("BPF_NONE", "they are str, not a number(.|\\n)*give a number, such as"),
        (1.0, "cannot use flags 1.0: they are float, not a number(.|\\n)*give a number, such as"),
    ],
)
def test_flags_that_are_no_number(flags, message):
    with pytest.raises(MapTypeError, match=message):
        flags_of(flags)


SMALL, LARGE = 1, 2  # type ids


@pytest.fixture(scope="module")
def codecs():
    writer = BtfWriter()
    assert (writer.add_int("small", 4, 0), writer.add_int("large", 8, 0)) == (SMALL, LARGE)
    return Codecs(Btf(writer.to_bytes()))


@pytest.mark.parametrize(
    ("type", "sizes", "defined", "expected"),
    [
        (MapType.HASH, (4, 8), (SMALL, LARGE), (SMALL, LARGE)),
        (MapType.HASH, (8, 8), (SMALL, LARGE), (0, LARGE)),
        (MapType.HASH, (4, 4), (SMALL, LARGE), (SMALL, 0)),
        (MapType.QUEUE, (0, 8), (0, LARGE), (0, LARGE)),
        (MapType.RINGBUF, (0, 0), (0, LARGE), (0, LARGE)),  # the type of its records
    ],
)
def test_types_of_a_definition_whose_sizes_are_those_of_the_kernel(codecs, type, sizes, defined, expected):
    info = MapInfo(type, 7, "a", *sizes, 1, 0, 0, 0, 0)
    typed = _with_types(info, MapDefinition("a", {}, *defined), codecs)
    assert (typed.btf_key_type_id, typed.btf_value_type_id) == expected
    assert (typed.id, typed.key_size, typed.value_size) == (7, *sizes)


@pytest.mark.parametrize(
    ("first", "more"), [("Linux 6.9", ", they came with Linux 6.9"), (None, "")], ids=["known", "unknown"]
)
def test_a_type_that_the_kernel_lacks(monkeypatch, first, more):
    monkeypatch.setattr(create_errors, "probe", lambda kind, name: (kind, name) != ("map_type", "arena"))
    monkeypatch.setattr(create_errors, "since", lambda feature: first)
    assert create_errors._no_type(MapType.HASH) is None
    why, fix = create_errors._no_type(MapType.ARENA)
    assert why == f"Linux {release()} has no maps of type arena{more}"
    assert fix == 'mark the test bpf_requires("arena")'
