"""Tests stored kernels that were damaged on the disk: repaired from their image, or named with a remedy."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from damage import damages
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_files import bzimage, package_files, write

from pytest_bpfmaps import cli
from pytest_bpfmaps.cache import stored_files
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels import vmlinux_choice
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue, check_content
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.kernels.lockfile import write as write_lock

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64"),
    pytest.mark.skipif(
        not shutil.which("depmod", path="/usr/sbin:/sbin:/usr/bin"), reason="needs kmod's depmod"
    ),
]
PARTS = ("kernel.json", "boot/vmlinuz-*", "vmlinux", "btf", "boot/config-*", "lib/modules/*/modules.dep")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    folder = tmp_path_factory.mktemp("damaged")
    write(folder / "package", package_files())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPFMAPS_CACHE", str(folder / "cache"))
        made = Catalogue()
        made.add(folder / "package")
        yield made


def part(catalogue: Catalogue, pattern: str) -> Path:
    (found,) = (catalogue.root / "6.1").glob(pattern)
    return found


def use(catalogue: Catalogue) -> Kernel:
    """Checks a kernel as a run does before it makes a state."""
    (kernel,) = catalogue.select("6.1")
    check_content(kernel)
    return kernel


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_mended_or_named(catalogue: Catalogue, data: st.DataObject) -> None:
    """It never raises another exception, and never returns a kernel that differs from the stored one."""
    whole = use(catalogue)
    path = part(catalogue, data.draw(st.sampled_from(PARTS)))
    before = path.read_bytes()
    damaged = data.draw(damages())(before)
    path.write_bytes(damaged)
    lines: list[str] = []
    try:
        with stored_files.listening(lines.append):
            assert use(catalogue) == whole
        # The damage may hit the name "digest".
        assert path.read_bytes() == before or path.name == "kernel.json"
        assert lines == ([] if path.name == "kernel.json" else [f"{path} is made again: it was damaged"])
    except VmError as error:
        said = str(error)
    else:
        said = ""
    finally:
        path.write_bytes(before)
    if said:
        assert said.startswith("cannot use kernel '6.1': its stored files are damaged: ")
        assert "\n  -> get it again: bpfmaps kernels " in said


@pytest.mark.parametrize("pattern", ["vmlinux", "btf"])
@pytest.mark.parametrize("how", ["cut", "gone", "flipped"])
def test_what_came_out_of_the_image_is_taken_out_again(catalogue: Catalogue, pattern: str, how: str) -> None:
    whole, path = use(catalogue), part(catalogue, pattern)
    before = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(before[:-1] if how == "cut" else before[:-1] + bytes([before[-1] ^ 1]))
    lines: list[str] = []
    with stored_files.listening(lines.append):
        assert use(catalogue) == whole
        assert use(catalogue) == whole
    assert lines == [f"{path} is made again: it was damaged"]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b"{}", b"null", b"[[[[", b"\xff", b'{"format": 1, "rel', b"[" * 9999]
)
def test_a_damaged_entry_does_not_vanish(
    catalogue: Catalogue, damage: bytes, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = part(catalogue, "kernel.json")
    before = path.read_bytes()
    path.write_bytes(damage)
    try:
        for pattern in ("6.1", "6*", "all", "newest"):
            with pytest.raises(VmError, match=r"cannot use kernel '6\.1': its stored files are damaged"):
                catalogue.select(pattern)
        with pytest.raises(VmError, match="stored files are damaged"):
            write_lock(tmp_path / "kernels.lock", catalogue)
        assert cli.main(["kernels", "list"]) == 0
        assert "cannot use kernel '6.1'" in capsys.readouterr().err
        assert vmlinux_choice.Setting().choose().text.endswith("the newest without 6.1, which is damaged")
    finally:
        path.write_bytes(before)


def test_the_command_in_the_message_stores_it_again(catalogue: Catalogue) -> None:
    whole, path = use(catalogue), part(catalogue, "kernel.json")
    os.truncate(path, path.stat().st_size - 20)
    with pytest.raises(VmError) as caught:
        use(catalogue)
    command = shlex.split(str(caught.value.fix).partition(": ")[2])
    assert command[:3] == ["bpfmaps", "kernels", "add"]
    assert cli.main(command[1:]) == 0
    assert use(catalogue) == whole


def test_a_source_that_is_no_source_is_in_no_command(catalogue: Catalogue) -> None:
    path = part(catalogue, "kernel.json")
    before = path.read_text()
    source = json.loads(before)["source"]
    try:
        for hostile in ("$(reboot)", "-o x", "a;b", "\\u001b[2J", "`x`"):
            path.write_text(before.replace(source, hostile))
            with pytest.raises(VmError) as caught:
                use(catalogue)
            assert caught.value.fix == "get it again: bpfmaps kernels fetch debian:bookworm --name 6.1"
    finally:
        path.write_text(before)


def test_an_entry_of_an_older_version_is_measured_once(catalogue: Catalogue) -> None:
    path = part(catalogue, "kernel.json")
    facts = json.loads(path.read_text())
    parts = facts.pop("parts")
    del facts["digest"]
    path.write_text(json.dumps(facts))
    damaged = part(catalogue, "btf")
    before = damaged.read_bytes()
    damaged.write_bytes(before[:-1] + b"?")
    lines: list[str] = []
    with stored_files.listening(lines.append):
        use(catalogue)
    assert lines == [f"{damaged} is made again: it was damaged"]
    assert damaged.read_bytes() == before
    assert json.loads(path.read_text())["parts"] == parts


def test_an_image_that_was_read_out_of_a_path_is_read_again(catalogue: Catalogue, tmp_path: Path) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage("6.5.0"))
    (kernel,) = catalogue.select(str(image))
    os.truncate(kernel.image, 100)
    lines: list[str] = []
    with stored_files.listening(lines.append):
        (again,) = catalogue.select(str(image))
    assert again == kernel
    assert kernel.image.read_bytes() == image.read_bytes()
    assert len(lines) == 1
