"""Tests that damaged files of the cache, and files of other users, are made again, with a message."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from damage import damages
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_bpfmaps import paths
from pytest_bpfmaps.cache import stored_files
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.errors import CacheError, CompileError
from pytest_bpfmaps.vm.boot import bytecode

VMLINUX_H = "typedef unsigned int u32;\n"
SOURCE = '#include "vmlinux.h"\nstruct s { u32 a; };\nu32 f(void) { struct s local = {}; return local.a; }\n'


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("damaged") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPFMAPS_CACHE", str(folder))
        yield folder


def compiled(folder: Path) -> dict[str, bytes]:
    """Compiles a program, links it with another one, and returns the results by name."""
    header = folder.parent / "types.h"
    if not header.exists():
        header.write_text(VMLINUX_H)
    compiler = LocalCompiler()
    one = compiler.compile(CompileRequest(code=SOURCE, name="one.bpf.c", btf=str(header)))
    two = compiler.compile(CompileRequest(code="int two;", name="two.bpf.c"))
    both = compiler.link([one, two])
    return {path.name: path.read_bytes() for path in (one, one.with_suffix(".types"), two, both)}


def kept(cache: Path) -> list[Path]:
    """Returns every file of the cache, without locks and time stamps."""
    found = sorted(path for path in (cache / "objects").rglob("*") if path.is_file())
    return [path for path in found if path.parent.name != "locks" and path.name != "collected"]


def kinds(cache: Path) -> set[str]:
    return {path.suffix or path.parent.name for path in kept(cache)}


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_is_damaged_the_objects_are_the_same(cache: Path, data: st.DataObject) -> None:
    whole = compiled(cache)
    assert kinds(cache) >= {".o", ".types", ".json", ".h", ".digest", ".linked", "btf"}
    files = kept(cache)  # their number is not constant
    path = files[data.draw(st.integers(0, 1000)) % len(files)]
    before = path.read_bytes()
    damaged = data.draw(damages())(before)
    path.write_bytes(damaged)
    lines: list[str] = []
    with stored_files.listening(lines.append):
        assert compiled(cache) == whole
        assert len(lines) <= 1, lines
        assert all(line == f"{path} is made again: it was damaged" for line in lines)
        lines.clear()
        assert compiled(cache) == whole  # one repair is enough
        assert lines == []
    if path.exists() and path.read_bytes() == damaged:  # nothing needed this file; the next example may
        path.write_bytes(before)


@pytest.mark.parametrize("kind", [".o", ".types", ".json", ".linked", "btf"])
def test_one_line_says_it(cache: Path, kind: str) -> None:
    whole = compiled(cache)
    path = next(path for path in kept(cache) if kind in (path.suffix, path.parent.name))
    os.truncate(path, 3)
    lines: list[str] = []
    with stored_files.listening(lines.append):
        assert compiled(cache) == whole
    assert len(lines) == 1, lines
    (line,) = lines
    assert line == f"{path} is made again: it was damaged"


def test_checked_text_holds_whatever_was_written(tmp_path: Path) -> None:
    for text in ("", "\n", "a\n\n", "é\udcff\0", "x" * 100_000):
        stored_files.write_checked(tmp_path / "a", text)
        assert stored_files.read_checked(tmp_path / "a") == text
    assert stored_files.read_checked(tmp_path / "none") is None


def test_the_folder_is_made_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "a/cache"))
    mask = os.umask(0)
    try:
        made = LocalCompiler().compile(CompileRequest(code="int x;"))
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a/cache").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a/cache/objects").stat().st_mode) == 0o700
    assert stat.S_IMODE(made.stat().st_mode) == 0o644


@pytest.mark.parametrize("which", ["cache", "cache/objects"])
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str, mode: int
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache/objects").mkdir(parents=True)
    (tmp_path / which).chmod(mode)
    with pytest.raises(CacheError, match=rf"others may write to it \(mode {mode:04o}\)") as caught:
        LocalCompiler().compile(CompileRequest(code="int x;"))
    assert isinstance(caught.value, CompileError)
    if mode & stat.S_ISVTX:
        assert caught.value.fix == "set BPFMAPS_CACHE to a folder of your own"
        return
    command = str(caught.value.fix).split("`")[1]
    assert os.system(command) == 0
    stored_files._check.cache_clear()
    assert LocalCompiler().compile(CompileRequest(code="int x;")).exists()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@needs_root
def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    os.chown(tmp_path / "cache", 4242, -1)
    with pytest.raises(CacheError, match="it belongs to user 4242, and this is user 0"):
        LocalCompiler().compile(CompileRequest(code="int x;"))
    stored_files._check.cache_clear()
    monkeypatch.setenv("SUDO_UID", "4242")
    assert LocalCompiler().compile(CompileRequest(code="int x;")).exists()


def test_an_object_that_others_could_have_written_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    request = CompileRequest(code="int x;")
    lines: list[str] = []
    with stored_files.listening(lines.append):
        made = LocalCompiler().compile(request)
        manifest = next((tmp_path / "cache/objects/manifests").iterdir())
        for path in (made, manifest):
            path.chmod(0o666)
            assert LocalCompiler().compile(request) == made
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert lines == [f"{path} is made again: others may write to it (mode 0666)" for path in (made, manifest)]


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "a").write_text("x")
    stored_files.place_folder(made, tmp_path / "target")
    assert (tmp_path / "target/a").read_text() == "x"
    with pytest.raises(FileNotFoundError):
        stored_files.place_folder(made, tmp_path / "target")


NAMES = st.text(max_size=5).filter("digest".__ne__)
FACTS = st.dictionaries(NAMES, st.integers() | st.text() | st.lists(st.booleans()), max_size=5)


@given(facts=FACTS, data=st.data())
def test_facts_are_what_was_written_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, facts: dict[str, Any], data: st.DataObject
) -> None:
    """Damages the stored facts about QEMU, KVM, virtme-ng and package lists."""
    path = tmp_path_factory.getbasetemp() / "facts.json"
    stored_files.write_json(path, facts)
    assert stored_files.read_json(path) == facts
    before = path.read_bytes()
    path.write_bytes(data.draw(damages())(before))
    lines: list[str] = []
    with stored_files.listening(lines.append):
        assert stored_files.read_json(path) in (facts, {})
    assert len(lines) <= 1


def test_facts_of_an_older_version_are_none(tmp_path: Path) -> None:
    for text in ('{"a": 1}', "{}"):
        (tmp_path / "facts").write_text(text)
        assert stored_files.read_json(tmp_path / "facts") == {}
        assert (tmp_path / "facts").exists()


def test_bytecode_for_guests_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    sources = sorted(paths.PACKAGE.glob("*.py"))  # other tests may make bytecode of them at the same time
    monkeypatch.setattr(bytecode, "_missing", lambda: iter(sources))
    made = bytecode.archive()
    whole = made.read_bytes()
    for damage in (whole[:-1], b"", whole[:600] + bytes([whole[600] ^ 1]) + whole[601:]):
        made.write_bytes(damage)
        lines: list[str] = []
        with stored_files.listening(lines.append):
            again = bytecode.archive()
            assert bytecode.archive() == again
        assert lines == [f"{made} is made again: it was damaged"]
        with tarfile.open(again) as tar:
            assert all(member.size or member.isdir() for member in tar)
        made = again
        whole = made.read_bytes()
