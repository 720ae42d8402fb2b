"""Tests that the cache does not grow without limit, and that it removes nothing that is in use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_bpfmaps.compiler.cache_eviction import EVERY, MAX_AGE, evict
from pytest_bpfmaps.compiler.cache_in_use import steady, use

DAY = 86400


@pytest.fixture(autouse=True)
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "objects"


COMPILES = """
import sys
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
print(LocalCompiler().compile(CompileRequest(code=sys.argv[2], name=f"{sys.argv[1]}.bpf.c")), flush=True)
sys.stdin.read()
"""


def run_with(name: str, code: str) -> subprocess.Popen[str]:
    """Starts a process that compiles this, prints the object's path, and lives until its stdin ends."""
    command = [sys.executable, "-c", COMPILES, name, code]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def compiled(name: str, code: str = "") -> Path:
    """Returns the path of an object whose compiling process has ended."""
    with run_with(name, code or f"int {name};") as process:
        return Path(process.communicate(timeout=120)[0].strip())


def age(path: Path, seconds: float) -> None:
    """Sets the time of the last use of `path` and of all files below it to `age` ago."""
    when = time.time() - seconds
    for each in (*path.rglob("*"), path):
        os.utime(each, (when, when))


def test_what_nobody_used_for_long_goes_with_all_that_serves_it(objects: Path) -> None:
    compiled("old")
    age(objects, MAX_AGE + 60)
    young = compiled("young")
    evict(objects)
    assert [path.name for path in objects.rglob("*.bpf.?") if path.stem == "old.bpf"] == []
    assert young.exists()
    assert len(list((objects / "manifests").iterdir())) == 1


def test_the_oldest_go_first_when_all_is_too_big(objects: Path) -> None:
    made = [compiled(name, f"char {name}[100000] = {{1}};") for name in ("five", "three", "four", "two")]
    age(objects, 2 * DAY)
    for days, path in zip((5, 3, 4, 2), made, strict=True):
        age(path.parent, days * DAY)
    evict(objects, max_bytes=sum(path.stat().st_size for path in made))
    assert [path.exists() for path in made] == [False, True, False, True]


def test_nothing_goes_while_it_fits(objects: Path) -> None:
    made = compiled("a")
    age(objects, 2 * DAY)
    assert evict(objects) == []
    assert made.exists()


def test_what_was_used_within_the_hour_stays_however_big(objects: Path) -> None:
    made = compiled("a")
    assert evict(objects, max_age=0, max_bytes=0) == []
    assert made.exists()


def test_use_keeps_an_object_young(objects: Path) -> None:
    made = compiled("a")
    age(objects, MAX_AGE + 60)
    assert compiled("a") == made
    evict(objects)
    assert made.exists()


def test_a_collected_object_is_made_again(objects: Path) -> None:
    made = compiled("a")
    age(objects, MAX_AGE + 60)
    evict(objects)
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


@pytest.mark.parametrize("is_new", [True, False])
def test_what_a_run_uses_stays_until_it_ends(objects: Path, is_new: bool) -> None:
    """However long it lives, and however large the object is: it may load the object hours later."""
    if not is_new:
        age(compiled("a").parent, MAX_AGE + 60)
    other = compiled("other")
    age(objects, MAX_AGE + 60)
    with run_with("a", "int a;") as run:
        assert run.stdout is not None
        assert run.stdin is not None
        made = Path(run.stdout.readline().strip())
        two_hours = time.time() - 7200
        for each in (made.parent, *made.parent.iterdir(), *(objects / "runs").iterdir()):
            os.utime(each, (two_hours, two_hours))
        evict(objects, max_age=0, max_bytes=0)
        assert made.exists()
        assert not other.exists()
        run.stdin.close()
        run.wait(600)
    assert made.parent in evict(objects, max_age=0, max_bytes=0)
    assert not list((objects / "runs").iterdir())


def test_what_is_being_taken_into_use_is_not_removed(objects: Path) -> None:
    """Another process starts to use an old object after the collector saw it and before it removes it."""
    made = compiled("a")
    age(objects, MAX_AGE + 60)
    with steady(objects):
        collecting = subprocess.Popen([sys.executable, "-c", COLLECTS, str(objects)], stdout=subprocess.PIPE)
        assert collecting.stdout is not None
        assert collecting.stdout.readline() == b"looks\n"
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for the lock without a limit
            collecting.wait(0.5)
        use(objects, made.parent)
    assert collecting.wait(600) == 0
    collecting.stdout.close()
    assert made.exists()


COLLECTS = """
import sys
from pathlib import Path
from pytest_bpfmaps.compiler import cache_eviction
print("looks", flush=True)
cache_eviction.evict(Path(sys.argv[1]))
"""


def test_what_is_used_of_the_linker_and_of_a_header_stays_young(objects: Path) -> None:
    names = [compiled(name, f"int {name}(void) {{ return 1; }}") for name in ("a", "b")]
    program = "import sys; from pathlib import Path; from pytest_bpfmaps.compiler.linker import link"
    command = [sys.executable, "-c", f"{program}; print(link([*map(Path, sys.argv[1:])]))", *map(str, names)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    linked = Path(done.stdout.strip())
    age(linked.parent, MAX_AGE + 60)
    subprocess.run(command, capture_output=True, check=True)
    evict(objects)
    assert linked.exists()
