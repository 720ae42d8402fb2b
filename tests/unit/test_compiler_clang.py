"""Tests which clang is used, and what is left of what it prints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_bpfmaps.compiler.clang import find_clang, run
from pytest_bpfmaps.compiler.dependencies import parse_search_path, without_search_path


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a folder the only one in $PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{tmp_path / 'absent'}")
    monkeypatch.delenv("CLANG", raising=False)
    return folder


def put(folder: Path, name: str, version: str = "0") -> Path:
    path = folder / name
    log = folder.parent / "asked"
    path.write_text(f"#!/bin/sh\necho {name} >>{log}\necho 'Some clang version {version} (vendor)'\n")
    path.chmod(0o755)
    return path


def chosen(tmp_path: Path, explicit: str | None = None) -> str:
    return os.path.basename(find_clang(explicit, tmp_path / "versions").path)


def test_the_newest_number_wins_by_value(bin_folder: Path, tmp_path: Path) -> None:
    for name in ("clang-9", "clang-14", "clang-19", "clang-cpp-21", "clang-format-22", "clang++-20"):
        put(bin_folder, name)
    (bin_folder / "clang-30").touch()  # not executable
    assert chosen(tmp_path) == "clang-19"
    assert not (tmp_path / "asked").exists()


def test_a_plain_clang_alone(bin_folder: Path, tmp_path: Path) -> None:
    put(bin_folder, "clang")
    assert chosen(tmp_path) == "clang"


@pytest.mark.parametrize(("plain", "wins"), [("21.1.0", "clang"), ("19.1.7", "clang-19"), ("18", "clang-19")])
def test_a_plain_clang_is_asked_once_for_its_version(
    plain: str, wins: str, bin_folder: Path, tmp_path: Path
) -> None:
    put(bin_folder, "clang", plain)
    put(bin_folder, "clang-19")
    assert [chosen(tmp_path) for _ in range(3)] == [wins] * 3
    assert (tmp_path / "asked").read_text() == "clang\n"


def test_a_plain_clang_that_was_replaced_is_asked_again(bin_folder: Path, tmp_path: Path) -> None:
    put(bin_folder, "clang", "18")
    put(bin_folder, "clang-19")
    assert chosen(tmp_path) == "clang-19"
    put(bin_folder, "clang", "20.1")
    assert chosen(tmp_path) == "clang"


def test_a_plain_clang_that_is_a_link_to_a_numbered_one_is_not_asked(
    bin_folder: Path, tmp_path: Path
) -> None:
    put(bin_folder, "clang-19")
    (bin_folder / "clang").symlink_to("clang-19")
    assert chosen(tmp_path) == "clang-19"
    assert not (tmp_path / "asked").exists()


def test_the_argument_beats_the_variable_beats_the_path(
    bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("clang-14", "clang-16", "clang-19"):
        put(bin_folder, name)
    monkeypatch.setenv("CLANG", "clang-16")
    assert chosen(tmp_path) == "clang-16"
    assert chosen(tmp_path, "clang-14") == "clang-14"
    assert chosen(tmp_path, str(bin_folder / "clang-19")) == "clang-19"


def test_identity_changes_with_the_binary(bin_folder: Path, tmp_path: Path) -> None:
    path = put(bin_folder, "clang-19")
    before = find_clang(None, tmp_path).identity
    assert find_clang(None, tmp_path).identity == before
    path.write_text("#!/bin/sh\n")
    assert find_clang(None, tmp_path).identity != before


@pytest.mark.parametrize(
    "flags",
    [
        ["-Wno-such-warning", "-lm"],
        ["-Wall", "-I/nonexistent"],
        ["-include", "no-such.h"],
        ["-mcpu=no-such"],
        ["--no-such-option"],
    ],
    ids=lambda flags: flags[0],
)
def test_only_diagnostics_are_left_of_what_clang_prints(tmp_path: Path, flags: list[str]) -> None:
    source = tmp_path / "x.c"
    source.write_text("int f(void) { int unused; return 1 }\n")
    clang = find_clang(None, tmp_path).path
    command = ["-target", "bpf", *flags, "-c", str(source), "-o", str(tmp_path / "x.o")]
    verbose = run([clang, "-v", *command], timeout=60).output
    if parse_search_path(verbose) is not None:
        assert without_search_path(verbose) == run([clang, *command], timeout=60).output
    else:
        assert flags[0] in ("-mcpu=no-such", "--no-such-option")
