"""Tests what keeps a guest's memory small: annotations that are not kept, and an answer made without json."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.vm.guest import supervisor
from pytest_bpfmaps.vm.guest.code_archive import forget_annotations

SOURCE = """
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, cached_property, wraps
from json import dumps
from typing import NamedTuple

def plain(a: int) -> str: return "plain"

@contextmanager
def manager(a: int): yield a

class Pair(NamedTuple):
    left: int
    right: str = ""

@dataclass
class Point:
    x: int
    y: list[int]

    def method(self, a: int) -> None: ...
    @staticmethod
    def static(a: int) -> None: ...
    @classmethod
    def of_class(cls, a: int) -> None: ...
    @property
    def value(self) -> int: return 1
    @value.setter
    def value(self, new: int) -> None: ...
    @cached_property
    def kept(self) -> int: return 1

    class Inner:
        def method(self, a: int) -> None: ...
"""


def test_functions_lose_their_annotations_and_classes_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("of_our_package")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(SOURCE, vars(module))
    other = dict(module.dumps.__annotations__), dict(module.wraps.__annotations__)
    forget_annotations(module)
    point = module.Point
    changed = [module.plain, module.manager, module.manager.__wrapped__, point.method, point.static]
    changed += [point.of_class.__func__, point.value.fget, point.value.fset, point.kept.func]
    changed += [point.Inner.method, point.__init__]
    assert [function.__annotations__ for function in changed] == [{}] * len(changed)
    assert [field.name for field in module.fields(point)] == ["x", "y"]
    assert set(point.__annotations__) == {"x", "y"}
    assert set(module.Pair.__annotations__) == {"left", "right"}
    assert (module.dumps.__annotations__, module.wraps.__annotations__) == other
    assert module.plain(1) == "plain"
    assert point(1, [2]) == point(1, [2])
    assert module.Pair(1).right == ""


@given(st.lists(st.tuples(st.text(), st.text())))
def test_the_answer_of_process_1_is_json(sections: list[tuple[str, str]]) -> None:
    assert json.loads(supervisor.as_json(sections)) == [list(pair) for pair in sections]


def test_process_1_imports_little() -> None:
    """Its memory is in each saved state of a guest."""
    # As process 1 has it: its own file alone, without the site module.
    folder = Path(supervisor.__file__).parent
    code = f"import sys; sys.path.append({str(folder)!r}); import supervisor; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    imported = set(done.stdout.split())
    assert not {"json", "re", "contextlib", "typing"} & imported
