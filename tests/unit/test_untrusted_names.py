"""Tests that names out of files and packages never become a command, a path or an escape sequence."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from installed import installed
from kernel_files import bzimage

from pytest_bpfmaps.cli import main
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels import debian, decompress, package_files
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.kernel_tree import FORMAT
from pytest_bpfmaps.vm.kernels.name_grammar import checked

KERNEL = {
    "name": "6.1",
    "source": "debian:bookworm",
    "release": "6.1.0-7-amd64",
    "arch": "x86_64",
    "packages": [{"name": "linux-image-6.1.0-7-amd64", "version": "6.1.20-1", "sha256": "0" * 64}],
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "project"


def with_package(**facts: object) -> dict[str, object]:
    return {"packages": [{**KERNEL["packages"][0], **facts}]}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "changed",
    [
        with_package(name="-o=Dir::Bin::dpkg", version="{trap}"),
        with_package(name="-c", version="{trap}"),
        with_package(name="--config-file={trap}"),
        with_package(version="1 -o=Dir::Cache::pkgcache={trap}"),
        with_package(version="-o"),
        with_package(name=7),
        with_package(version=None),
        with_package(sha256="g" * 64),
        with_package(sha256=""),
        with_package(name="a\x1b]0;title\x07"),
        {"release": "-rf"},
        {"release": "../../etc"},
        {"release": 6.1},
        {"release": "6.1\x1b[2J"},
        {"arch": "x86_64; touch {trap}"},
        {"name": ".locks"},
        {"name": "-rf"},
        {"name": "host"},
        {"name": "a/b"},
        {"name": 7},
        {"source": "-x"},
        {"source": ["debian:bookworm"]},
        {"source": "debian:bookworm\x1b[2J"},
    ],
    ids=str,
)
def test_a_lock_with_other_than_names_is_refused(
    changed: dict[str, object], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trap = project / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {project}/it-ran\n")
    trap.chmod(0o755)
    text = json.dumps({"format": 1, "kernels": [{**KERNEL, **changed}]}).replace("{trap}", str(trap))
    (project / "kernels.lock").write_text(text)
    assert main(["kernels", "fetch", "--locked"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert not (project / "it-ran").exists()
    assert said.startswith("bpfmaps: cannot read lock kernels.lock: ") or "cannot fetch" in said


def test_a_lock_that_is_nested_too_deeply_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "kernels.lock").write_text("[" * 100_000)
    assert main(["kernels", "fetch", "--locked"]) == 1
    assert "cannot read lock kernels.lock: RecursionError" in capsys.readouterr().err


def test_a_package_of_an_index_is_checked_like_one_of_a_lock() -> None:
    fields = {"Package": "linux-image-6.1", "Version": "6.1.20-1", "SHA256": "0" * 64, "Size": "1"}
    assert debian._package(fields).name == "linux-image-6.1"
    for name, value in {"Package": "-o", "Version": "1;2", "SHA256": "1"}.items():
        with pytest.raises(VmError, match=r"cannot trust a package index: .* is no "):
            debian._package({**fields, name: value})


@pytest.mark.parametrize("release", ["-rf", ".locks", "6.1\x1b[2J", "a/b", "x" * 65])
def test_a_kernel_with_such_a_release_is_refused(tmp_path: Path, release: str) -> None:
    image = tmp_path / "vmlinuz"
    image.write_bytes(bzimage(release))
    with pytest.raises(VmError, match=r"is no kernel release|can't|cannot") as caught:
        Catalogue().add(image)
    assert "\x1b" not in str(caught.value)
    assert list(Catalogue()) == []


def test_a_release_that_is_a_word_of_the_option_needs_a_name(tmp_path: Path) -> None:
    image = tmp_path / "vmlinuz"
    image.write_bytes(bzimage("host"))
    with pytest.raises(VmError, match="cannot name a kernel 'host'"):
        Catalogue().add(image)
    assert Catalogue().add(image, "mine").release == "host"


@given(st.text())
def test_the_grammars_leave_nothing_that_a_program_takes_for_an_option(text: str) -> None:
    for kind in ("package name", "package version", "kernel release", "architecture", "name", "source"):
        try:
            assert not checked(kind, text).startswith("-")
        except ValueError:
            continue


def archive(folder: Path, size: int) -> Path:
    """Makes a small package whose module is `size` zeros in its tar."""
    path = folder / "bomb.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        member = tarfile.TarInfo("lib/modules/6.1/kernel/big.ko")
        member.size = size
        with open("/dev/zero", "rb") as zeros:
            made.addfile(member, zeros)
    return path


def take_out(packed: Path, tree: Path) -> None:
    tree.mkdir()
    with packed.open("rb") as stream:
        package_files._unpack_tar(stream, tree, lambda size: None, package_files.Room(packed, tree))


def test_a_package_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    packed = archive(tmp_path, 80 << 20)
    with pytest.raises(VmError, match="it holds more than 30 times its size"):
        take_out(packed, tmp_path / "tree")
    assert not [path for path in (tmp_path / "tree").rglob("*") if path.is_file()]


def test_a_disk_that_would_be_full_is_said_before_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = archive(tmp_path, 1 << 20)
    (tmp_path / "tree").mkdir()
    monkeypatch.setattr(package_files, "LEFT_FREE", 1 << 60)
    with packed.open("rb") as stream, pytest.raises(VmError, match="would be full") as caught:
        package_files._unpack_tar(
            stream, tmp_path / "tree", lambda size: None, package_files.Room(packed, tmp_path / "tree")
        )
    assert "BPFMAPS_CACHE" in str(caught.value)


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_a_payload_that_gives_more_than_it_announces_is_stopped(tmp_path: Path, kind: str) -> None:
    command = [installed(kind), "-qc" if kind == "zstd" else "-qlc"]
    packed = subprocess.run(command, input=bytes(40 << 20), capture_output=True, check=True).stdout
    out = tmp_path / "out"
    with out.open("w+b") as file, pytest.raises(ValueError, match="gives more than the 4096 bytes"):
        decompress.decompress(packed + (4096).to_bytes(4, "little"), file)
    assert out.stat().st_size <= 4096


def put(path: Path, what: str) -> None:
    """Makes a pipe or a device instead of a file."""
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    else:
        path.mkdir()


@pytest.mark.parametrize("what", ["pipe", "device", "socket", "folder"])
def test_what_is_no_file_is_not_read(
    what: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe or a device may never end, so it is not read."""
    put(project / "kernels.lock", what)
    assert main(["kernels", "fetch", "--locked"]) == 1
    assert "cannot read lock" in capsys.readouterr().err
    entry = tmp_path / "cache" / "kernels" / "x"
    entry.mkdir(parents=True)
    put(entry / "kernel.json", what)
    assert main(["kernels", "list"]) == 0
    assert "cannot use kernel 'x'" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"image": "../../../../etc/shadow"}, "is outside of it"),
        ({"image": "/etc/shadow"}, "is outside of it"),
        ({"size": -5}, "its size is -5"),
        ({"size": "much"}, "its size is 'much'"),
    ],
)
def test_an_entry_that_points_elsewhere(
    facts: dict[str, object], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = tmp_path / "cache" / "kernels" / "x"
    entry.mkdir(parents=True)
    whole = {"release": "6.1", "image": "bzImage", "source": "here", "arch": "x86_64", "size": 0}
    (entry / "kernel.json").write_text(json.dumps({**whole, "format": FORMAT, "packages": [], **facts}))
    assert main(["kernels", "list"]) == 0
    assert why in "".join(capsys.readouterr())
