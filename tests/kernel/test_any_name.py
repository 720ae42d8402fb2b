"""Tests C names that are also names of this package: they mean the C variable, never a method."""

import keyword

import pytest

from pytest_bpfmaps.btf import Record
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.objects.collection import Named
from pytest_bpfmaps.objects.variables import Globals
from pytest_bpfmaps.programs.program import Program

# every name of an attribute of these classes, or of their instances
CLASSES = (Named, Globals)
TAKEN = {name for cls in CLASSES for name in dir(cls) if not name.startswith("__")}
TAKEN |= {
    "names",
    "items",
    "keys",
    "values",
    "get",
    "_parts",
    "_hidden",
    "_what",
    "_on",
    "_state",
    "_sections",
}
TAKEN |= {"_variables", "_find", "_enter", "_handle", "_Named__parts", "_Globals__state", "update", "close"}
NAMES = sorted(n for n in TAKEN if n.isidentifier() and not keyword.iskeyword(n))
LONGEST = 15  # the length of a program's or map's name in the kernel


@pytest.fixture
def obj(load_code):
    maps = "".join(
        f"struct {{ __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, {i + 1}); "
        f'__type(key, int); __type(value, int); }} {name} SEC(".maps");\n'
        for i, name in enumerate(NAMES)
    )
    return load_code(maps)


def test_maps(obj):
    for i, name in enumerate(NAMES):
        assert isinstance(obj.maps[name], Map)
        assert obj.maps[name].max_entries == i + 1
        if not name.startswith("_Named__"):
            assert getattr(obj.maps, name) is obj.maps[name]
    assert [m.name for m in obj.maps] == NAMES
    assert len(obj.maps) == len(NAMES)
    assert "names" in repr(obj.maps)


def test_programs(load_code):
    obj = load_code("".join(f'SEC("xdp") int {n}(void *c) {{ return {i}; }}\n' for i, n in enumerate(NAMES)))
    for i, name in enumerate(NAMES):
        assert isinstance(obj.programs[name], Program)
        assert int(obj.programs[name].run(bytes(64)).retval) == i
        if not name.startswith("_Named__"):
            assert getattr(obj.programs, name) is obj.programs[name]
    assert (
        load_code('SEC("xdp") int names(void *c) { return 2; }', programs=["names"]).programs.names.name
        == "names"
    )


def test_globals(load_code):
    declared = "".join(f"volatile int {n} = {i};\n" for i, n in enumerate(NAMES))
    used = " + ".join(NAMES)
    obj = load_code(f'{declared} SEC("xdp") int p(void *c) {{ return {used}; }}')
    for i, name in enumerate(NAMES):
        assert obj.globals[name] == i
        if not name.startswith("_Globals__"):
            assert getattr(obj.globals, name) == i
            setattr(obj.globals, name, i + 1)
            assert obj.globals[name] == i + 1
    assert set(NAMES) <= set(obj.globals)


def test_wrong_names_are_still_wrong(load_code):
    obj = load_code('int __odd = 3; SEC("xdp") int p(void *c) { return __odd; }')
    assert obj.globals.__getattr__("__odd") == 3
    for parts in (obj.maps, obj.programs, obj.globals):
        assert not hasattr(parts, "_nothing")
        assert not hasattr(parts, "__nothing__")


FIELDS = sorted({n for n in dir(Record) if not n.startswith("__")} | {"_data_", "_codec_", "index", "name"})
PYTHONS_OWN = ["__class__", "__data__", "__len__", "__slots__"]


def test_fields(bpf):
    fields = "".join(f"unsigned {n};" for n in (*FIELDS, *PYTHONS_OWN))
    struct = f"struct {{ {fields} struct {{ unsigned _asdict; }} inner; }}"
    m = bpf.create_map("hash", key=struct, value=struct, max_entries=2)
    numbers = {n: i for i, n in enumerate((*FIELDS, *PYTHONS_OWN))}
    m[numbers] = numbers | {"inner": {"_asdict": 99}}
    (listed,) = m
    for record in (m[numbers], listed):
        for name in FIELDS:
            assert getattr(record, name) == record[name] == numbers[name]
        for name in PYTHONS_OWN:
            assert record[name] == numbers[name]
    assert Record._asdict(m[numbers]) == numbers | {"inner": {"_asdict": 99}}
    assert m == {numbers_of(numbers): {**numbers, "inner": {"_asdict": 99}}}
    assert eval(repr(m[numbers])) == Record._asdict(m[numbers])


def numbers_of(numbers):
    return (*numbers.values(), (0,))
