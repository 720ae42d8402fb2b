"""The cache does not grow without end, and nothing that is in use goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pytest_bpfmaps.compiler import CompileRequest, LocalCompiler
from pytest_bpfmaps.compiler.collector import EVERY, MAX_AGE, collect

DAY = 86400


@pytest.fixture(autouse=True)
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "objects"


def compiled(name: str) -> Path:
    return LocalCompiler().compile(CompileRequest(code=f"int {name};", name=f"{name}.bpf.c"))


def age(path: Path, seconds: float) -> None:
    """Makes `path` and all below it look as if they were last used so long ago."""
    when = time.time() - seconds
    for each in (*path.rglob("*"), path):
        os.utime(each, (when, when))


def test_what_nobody_used_for_long_goes_with_all_that_serves_it(objects: Path) -> None:
    compiled("old")
    age(objects, MAX_AGE + 60)
    young = compiled("young")
    collect(objects)
    assert [path.name for path in objects.rglob("*.bpf.?") if path.stem == "old.bpf"] == []
    assert young.exists()
    assert len(list((objects / "manifests").iterdir())) == 1


def test_the_oldest_go_first_when_all_is_too_big(objects: Path) -> None:
    names = ("five", "three", "four", "two")
    big = [CompileRequest(code=f"char {name}[100000] = {{1}};", name=f"{name}.bpf.c") for name in names]
    made = [LocalCompiler().compile(request) for request in big]
    age(objects, 2 * DAY)
    for days, path in zip((5, 3, 4, 2), made, strict=True):
        age(path.parent, days * DAY)
    collect(objects, max_bytes=sum(path.stat().st_size for path in made))
    assert [path.exists() for path in made] == [False, True, False, True]


def test_nothing_goes_while_it_fits(objects: Path) -> None:
    made = compiled("a")
    age(objects, 2 * DAY)
    assert collect(objects) == []
    assert made.exists()


def test_what_was_used_within_the_hour_stays_however_big(objects: Path) -> None:
    made = compiled("a")
    assert collect(objects, max_age=0, max_bytes=0) == []
    assert made.exists()


def test_use_keeps_an_object_young(objects: Path) -> None:
    made = compiled("a")
    age(objects, MAX_AGE + 60)
    assert compiled("a") == made
    collect(objects)
    assert made.exists()


def test_a_collected_object_is_made_again(objects: Path) -> None:
    made = compiled("a")
    age(objects, MAX_AGE + 60)
    collect(objects)
    assert not made.exists()
    assert compiled("a") == made
    assert made.exists()


def test_compiling_collects_once_a_day(objects: Path) -> None:
    old = compiled("old")
    age(old.parent, MAX_AGE + 60)
    compiled("one")
    assert old.exists()
    age(objects / "collected", EVERY + 60)
    compiled("two")
    assert not old.exists()
    assert time.time() - (objects / "collected").stat().st_mtime < EVERY
