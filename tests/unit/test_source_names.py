"""Tests unusual names of sources, headers and folders: changes are seen, or the name is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.compiler.sources import find_source
from pytest_bpfmaps.errors import CompileError, SourceNotFoundError
from pytest_bpfmaps.vm.gateway.requests import Requests

BYTES = st.lists(
    st.sampled_from([*b"a.-_ #$%\\\n\t\r\x0b\x1b:;,=@'\"\xff\xc3\xa9()&|*?[]~!"]), min_size=1, max_size=6
)
REFUSED = "there is a (newline|backslash) in the path"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


def compiles_anew(request: CompileRequest, changing: Path) -> bool:
    """Returns whether two contents of a file make two objects. Returns False when its name is refused."""
    made = []
    for name in ("one", "another"):
        changing.write_text(f"int {name};\n")
        try:
            made.append(LocalCompiler().compile(request).read_bytes())
        except CompileError as error:
            why = str(error)
            break
    else:
        assert made[0] != made[1]
        return True
    assert ("newline" in why) or ("backslash" in why), why
    return False


def may_be_refused(path: Path) -> bool:
    return "\n" in str(path) or "\\" in str(path)


@settings(max_examples=12, deadline=None)
@given(BYTES.map(bytes))
@example(b"a#b")
@example(b"a\xffb")
@example(b"a\nb")
@example(b"a\\")
@example(b"@a")
def test_a_source(folder: Path, name: bytes) -> None:
    source = folder / os.fsdecode(b"x" + name + b".bpf.c")
    assert compiles_anew(CompileRequest(source=str(source)), source) is not may_be_refused(source)


@settings(max_examples=8, deadline=None)
@given(BYTES.map(bytes))
@example(b"a\tb\r")
@example(b"\xff#")
def test_a_folder_of_headers(folder: Path, name: bytes) -> None:
    include = folder / os.fsdecode(b"y" + name)
    include.mkdir(exist_ok=True)
    request = CompileRequest(code='#include "h.h"\n', include=(str(include),))
    assert compiles_anew(request, include / "h.h") is not may_be_refused(include)


def test_a_header_that_appears_in_an_earlier_folder(folder: Path) -> None:
    """A folder is searched, too, when clang prints its name in bytes that are not UTF-8."""
    first, second = folder / os.fsdecode(b"first\xff"), folder / "second"
    for each in (first, second):
        each.mkdir()
    (second / "late.h").write_text("int old;\n")
    request = CompileRequest(code='#include "late.h"\n', include=(str(first), str(second)))
    before = LocalCompiler().compile(request).read_bytes()
    (first / "late.h").write_text("int fresh;\n")
    assert LocalCompiler().compile(request).read_bytes() != before


def test_a_backslash_is_not_taken_for_a_folder(folder: Path) -> None:
    """clang writes a/b.h for a\\b.h, so a change of one file would be searched in the other."""
    (folder / "a").mkdir(exist_ok=True)
    (folder / "a/b.bpf.c").write_text("int other;\n")
    source = folder / "a\\b.bpf.c"
    source.write_text("int x;\n")
    with pytest.raises(CompileError, match=REFUSED):
        LocalCompiler().compile(CompileRequest(source=str(source)))


def test_text_that_is_no_utf_8_comes_from_a_guest_as_it_is(folder: Path) -> None:
    code = os.fsdecode(b'int x; // \xff\xe9\nconst char text[] = "\xff";\n')
    request = CompileRequest(code=code, name=os.fsdecode(b"\xff.bpf.c"))
    assert CompileRequest.from_json(request.to_json()) == request
    assert Requests(None, lambda: None).answer("compile", request.to_json())


def test_names_of_other_kinds_in_a_request(folder: Path) -> None:
    """The name that a guest gives its code is not a path on the host."""
    for name in ("..", ".", "/", "", "../../../etc/x.bpf.c", "a\nb", "x" * 300, "-o", "@x", "\0"):
        request = CompileRequest(code="int x;", name=name)
        try:
            made = LocalCompiler().compile(request)
        except (CompileError, ValueError):
            continue
        assert made.is_relative_to(LocalCompiler()._cache.root)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Path.mkdir, "is a folder"),
        (os.mkfifo, "is no file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no file"),
        (lambda path: path.symlink_to(path), "is a link to a missing file"),
        (lambda path: path.symlink_to("gone"), "is a link to a missing file"),
    ],
    ids=["folder", "pipe", "device", "link to itself", "link to nothing"],
)
@pytest.mark.parametrize("name", ["a.bpf.c", "a.bpf.o"])
def test_what_is_there_and_no_file(
    tmp_path: Path, name: str, make: Callable[[Path], object], why: str
) -> None:
    """The message does not say that it is missing, or that it is renamed."""
    make(tmp_path / name)
    with pytest.raises(SourceNotFoundError, match=f"{name} {why}\n  -> name a .bpf.c or .bpf.o file"):
        find_source(name, [tmp_path])


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="no such file at"):
        find_source("x" * 300 + ".bpf.c", [tmp_path])
