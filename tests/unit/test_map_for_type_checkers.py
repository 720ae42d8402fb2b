"""Tests what mypy and editors see of the maps, programs and globals of an object."""

import ast
import inspect
import re
import subprocess
import sys

import pytest

import pytest_bpfmaps
import pytest_bpfmaps.events  # registers the classes of buffers
import pytest_bpfmaps.maps.families.registry  # registers the others
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.objects import any_map

CLASSES = set(Map.classes.values())
# for this package's own modules, and texts in messages
INTERNAL = {"declared_by", "read_elsewhere", "compared", "packed_snapshot"} | {
    name
    for each in CLASSES
    for name, found in inspect.getmembers(each)
    if isinstance(found, str | dict | type)
}
BEGIN = """
from pytest_bpfmaps import Bpf, Map


def count(which: Map) -> int:
    return len(which)


def test_it(bpf: Bpf) -> None:
    loaded = bpf.load("x.bpf.c")
    agent = bpf.start(["./agent"])
    made = bpf.create_map("hash", key="u32", value="u64", max_entries=1)
"""
RIGHT = """
loaded.maps.opens[1] = 2
assert loaded.maps["opens"][1] == 2
assert loaded.maps.opens == {1: 2}
assert 1 in loaded.maps.opens
assert loaded.maps.opens >= {1: 2}
assert {pid: n + 1 for pid, n in loaded.maps.opens.items()}
assert [each.fd + each.max_entries for each in loaded.maps]
assert [name.upper() for name in loaded.maps.names()]
assert loaded.maps.sums.sum() == {1: 2}
assert loaded.maps.todo.pop() == loaded.maps.opens.pop(1, None)
with loaded.maps.events.capture("event", tap=True) as events:
    events.expect(pid=1)
assert loaded.programs.count.run(b"").retval == 0
loaded.programs.count.attach().close()
loaded.globals.target = loaded.globals["other"] + 1
assert agent.maps.opens[1] == 2
assert agent.maps[17].get(1) == bpf.pinned("opens").get(1) == bpf.map_by_id(17)[1]
made[1] = 2
assert count(made) + count(loaded.maps.opens) + count(agent.maps.opens)
assert bpf.load("y.bpf.c", reuse={"opens": made}).maps.opens.lookup_batch()
"""
WRONG = {
    "loaded.maps.opens.lookup_elm(1)": '"Map" has no attribute "lookup_elm"',
    'loaded.maps["opens"].snapshots()': '"Map" has no attribute "snapshots"',
    "loaded.maps.events.capture(kind=1)": 'Unexpected keyword argument "kind" for "capture" of "Map"',
    "loaded.maps.opens.max_entries = 2": 'Property "max_entries" defined in "Map" is read-only',
    "loaded.programs.count.atach()": '"Program" has no attribute "atach"',
    "loaded.programs.count.run(repeats=1)": 'Unexpected keyword argument "repeats" for "run" of "Program"',
    "[each.nam for each in loaded.maps]": '"Map" has no attribute "nam"',
    "agent.maps.opens.freezes()": '"Map" has no attribute "freezes"',
    "made.delete_element(1)": '"Map" has no attribute "delete_element"',
    "loaded.map": '"LoadedObject" has no attribute "map"',
}


def declared() -> dict[str, ast.FunctionDef]:
    module = ast.parse(inspect.getsource(any_map))
    (found,) = (node for node in ast.walk(module) if isinstance(node, ast.ClassDef))
    return {node.name: node for node in found.body if isinstance(node, ast.FunctionDef)}


def of_a_type(name: str) -> bool:
    """Returns whether a map type has a public operation of that name that not all maps have."""
    special = ("getitem", "setitem", "delitem", "contains", "iter", "len", "bool", "ge", "le")
    public = name in [f"__{each}__" for each in special] or not name.startswith("_")
    refused = ("__getitem__", "__setitem__", "__delitem__")  # by the base, for types without keys
    inherited = hasattr(Map, name) and name not in (*refused, "__ge__", "__le__")
    return public and name not in INTERNAL and not inherited


def test_it_has_the_operations_of_all_map_types() -> None:
    operations = {name for each in CLASSES for name in dir(each) if of_a_type(name)}
    assert declared().keys() == operations


@pytest.mark.parametrize(
    "name", [name for name in declared() if name not in ("pop", "capture", "__ge__", "__le__")]
)
def test_an_operation_takes_what_the_types_take(name: str) -> None:
    node = declared()[name]
    mine = [each.arg for each in node.args.args + node.args.kwonlyargs]
    taken: list[list[str]] = []
    for each in CLASSES:
        found = inspect.getattr_static(each, name, None)
        if found is not None:
            assert isinstance(found, property) == bool(node.decorator_list)
            function = found.fget if isinstance(found, property) else found
            taken.append(list(inspect.signature(function).parameters))
    assert any(mine == other for other in taken)
    for other in taken:
        assert len(other) <= len(mine) or name == "__getitem__"


def mypy(tmp_path, mypy_cache, lines: list[str]) -> list[str]:
    (tmp_path / "test_user.py").write_text(BEGIN + "".join(f"    {line}\n" for line in lines))
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={mypy_cache}", "test_user.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    return [line for line in done.stdout.splitlines() if ": error: " in line] + done.stderr.splitlines()


def test_mypy_takes_what_is_right(tmp_path, mypy_cache) -> None:
    assert mypy(tmp_path, mypy_cache, RIGHT.strip().splitlines()) == []


def test_mypy_finds_what_is_misspelt(tmp_path, mypy_cache) -> None:
    found = mypy(tmp_path, mypy_cache, list(WRONG))
    first = BEGIN.count("\n") + 1
    by_line = {int(re.match(r"test_user.py:(\d+):", line).group(1)): line for line in found}
    assert list(by_line) == list(range(first, first + len(WRONG)))
    for line, message in zip(by_line.values(), WRONG.values(), strict=True):
        assert message in line


def test_it_is_the_base_of_all_maps_in_a_run() -> None:
    assert any_map.Map is Map is pytest_bpfmaps.Map
