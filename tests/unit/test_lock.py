"""Tests ``kernels.lock`` with real package archives and images."""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from container_images import FILES, Layout, layer
from kernel_files import bzimage, write
from package_archive import Archive, kernel_packages

from pytest_bpfmaps.cli import main
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels import lockfile
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.fetch import fetch
from pytest_bpfmaps.vm.kernels.progress import Silent

_TOOLS = ("apt-get", "dpkg-deb", "gpg", "depmod")
_MISSING = [tool for tool in _TOOLS if not shutil.which(tool, path="/usr/bin:/bin:/usr/sbin:/sbin")]
pytestmark = [
    pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)}"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64"),
]
Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a folder the working folder."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "project"


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue()


@pytest.fixture
def locked(archive: Archive, make: Make, catalogue: Catalogue) -> Archive:
    """Makes an archive whose suite has a newer kernel than the locked one, and an empty catalogue."""
    archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    fetch("debian:bookworm", catalogue, Silent())
    lockfile.write(lockfile.DEFAULT, catalogue)
    catalogue.remove("6.1")
    archive.suite("bookworm", kernel_packages(make, "6.1.0-8-amd64", "6.1.21-1"))
    return archive


def test_file(archive: Archive, make: Make, catalogue: Catalogue, project: Path) -> None:
    archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    kernel, _ = fetch("debian:bookworm", catalogue, Silent())
    assert main(["kernels", "lock"]) == 0
    (package,) = kernel.to_json()["packages"]
    assert set(package) == {"name", "version", "sha256"}
    assert json.loads((project / "kernels.lock").read_text()) == {
        "format": 1,
        "kernels": [
            {
                "name": "6.1",
                "source": "debian:bookworm",
                "release": "6.1.0-7-amd64",
                "arch": "x86_64",
                "packages": [package],
            }
        ],
    }


def test_the_archive_has_the_exact_version_still(
    locked: Archive, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    old = kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1")
    locked.suite("bookworm", [*old, *kernel_packages(make, "6.1.0-8-amd64", "6.1.21-1")])
    assert main(["kernels", "fetch", "--locked"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["6.1", "6.1.0-7-amd64"]
    assert [k.release for k in Catalogue()] == ["6.1.0-7-amd64"]


def test_the_archive_has_another_version(
    locked: Archive, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kernels", "fetch", "--locked"]) == 1
    said = capsys.readouterr().err
    assert "cannot fetch locked package linux-image-6.1.0-7-amd64 6.1.20-1" in said
    assert "has now linux-image-6.1.0-8-amd64 6.1.21-1" in said
    assert "bpfmaps kernels fetch debian:bookworm" in said
    assert catalogue.names() == []


def test_the_archive_has_other_content_of_that_version(
    locked: Archive, make: Make, catalogue: Catalogue
) -> None:
    locked.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    value = json.loads(lockfile.DEFAULT.read_text())
    value["kernels"][0]["packages"][0]["sha256"] = "0" * 64
    lockfile.DEFAULT.write_text(json.dumps(value))
    (kernel,) = lockfile.read(lockfile.DEFAULT)
    with pytest.raises(VmError, match=r"has now one of that version with SHA-256 [0-9a-f]{64}, not 0{64}"):
        lockfile.restore(kernel, catalogue, Silent())
    assert catalogue.names() == []


def test_offline(
    archive: Archive, make: Make, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    fetch("debian:bookworm", catalogue, Silent())
    main(["kernels", "lock"])
    capsys.readouterr()
    archive.use(uri="http://127.0.0.1:9/debian")
    assert main(["kernels", "fetch", "--locked"]) == 0
    captured = capsys.readouterr()
    assert captured.out.rstrip().endswith("debian:bookworm  is as it is locked")
    assert captured.err == ""


def test_stored_kernel_that_is_not_the_locked_one(
    locked: Archive, make: Make, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch("debian:bookworm", catalogue, Silent())
    said = "6.1: the stored kernel is 6.1.0-8-amd64 (6.1.21-1), the locked one is 6.1.0-7-amd64 (6.1.20-1)\n"
    assert main(["kernels", "fetch", "--locked"]) == 1
    assert capsys.readouterr().err.startswith(said)
    assert catalogue.get("6.1").release == "6.1.0-8-amd64"
    locked.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    assert main(["kernels", "fetch", "--locked"]) == 0
    assert capsys.readouterr().err.startswith(said)
    assert catalogue.get("6.1").release == "6.1.0-7-amd64"


def test_name_that_belongs_to_another_source(
    locked: Archive, make: Make, catalogue: Catalogue, tmp_path: Path
) -> None:
    locked.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    image = write(tmp_path, {"bzImage": bzimage()}) / "bzImage"
    catalogue.add(image)
    (kernel,) = lockfile.read(lockfile.DEFAULT)
    assert kernel.differences(catalogue.get("6.1")) == (
        f"the stored kernel is from {image}, the locked one from debian:bookworm"
    )
    with pytest.raises(VmError, match=r"that name belongs to .* from .*bzImage"):
        lockfile.restore(kernel, catalogue, Silent())
    assert catalogue.get("6.1").source == str(image)


class TestImages:
    @pytest.fixture
    def layout(self, project: Path, catalogue: Catalogue) -> Layout:
        """The layout is inside the project. Its tag was moved after it was locked."""
        layout = Layout(project / "images")
        layout.add(layout.manifest(layer(FILES)), "6.1")
        fetch("oci:images:6.1", catalogue, Silent())
        lockfile.write(lockfile.DEFAULT, catalogue)
        catalogue.remove("6.1")
        return layout

    def test_the_lock_moves_with_the_project(
        self, layout: Layout, project: Path, catalogue: Catalogue, tmp_path: Path
    ) -> None:
        moved = project.rename(tmp_path / "moved")
        (kernel,) = lockfile.read(moved / "kernels.lock")
        assert lockfile.restore(kernel, catalogue, Silent())[1]
        assert catalogue.get("6.1").source == f"oci:{moved}/images:6.1"
        assert lockfile.restore(kernel, catalogue, Silent())[1] is False

    def test_moved_tag(self, layout: Layout, catalogue: Catalogue) -> None:
        (kernel,) = lockfile.read(lockfile.DEFAULT)
        new = layout.add(layout.manifest(layer({"boot/vmlinuz": bzimage("6.1.9")})), "6.1")
        with pytest.raises(VmError, match=rf"no image sha256:.*: it has sha256:{new}"):
            lockfile.restore(kernel, catalogue, Silent())
        for tag in ("old", "older"):
            layout.add(layout.manifest(layer(FILES)), tag)
        assert lockfile.restore(kernel, catalogue, Silent())[0].release == kernel.release


class TestChoice:
    @pytest.fixture(autouse=True)
    def kernels(self, catalogue: Catalogue, project: Path, tmp_path: Path) -> None:
        """Two kernels were fetched, and one was added."""
        for release in ("5.10.1", "6.12.1"):
            layout = Layout(project / f"image-{release}")
            layout.add(layout.manifest(layer({"boot/vmlinuz": bzimage(release)})))
            fetch(f"oci:{layout.folder}", catalogue, Silent())
        catalogue.add(write(tmp_path, {"bzImage": bzimage("6.1.1")}) / "bzImage")

    def names(self) -> list[str]:
        return [kernel.name for kernel in lockfile.read(lockfile.DEFAULT)]

    def test_all_but_those_that_can_not_be_fetched(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["kernels", "lock"]) == 0
        assert self.names() == ["5.10", "6.12"]
        assert re.fullmatch(r"bpfmaps: 6\.1 is left out: it is from /.*/bzImage\n", capsys.readouterr().err)

    def test_named_ones_and_these_again(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["kernels", "lock", "5.*"]) == 0
        assert self.names() == ["5.10"]
        assert main(["kernels", "lock"]) == 0
        assert self.names() == ["5.10"]
        assert capsys.readouterr().err == ""

    def test_one_that_can_not_be_fetched(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["kernels", "lock", "6.*"]) == 1
        assert "cannot lock kernels in kernels.lock: 6.1 is from /" in capsys.readouterr().err
        assert not lockfile.DEFAULT.exists()

    def test_fetch_of_some(self, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]) -> None:
        main(["kernels", "lock", "--lock-file", "other.lock"])
        for name in ("5.10", "6.12"):
            catalogue.remove(name)
        assert main(["kernels", "fetch", "--locked", "--lock-file", "other.lock", "6.12"]) == 0
        assert catalogue.names() == ["6.1", "6.12"]
        assert main(["kernels", "fetch", "--locked", "--lock-file", "other.lock", "6.13"]) == 1
        assert "did you mean '6.12'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file"),
        ("", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"format": 2}', "its format is 2, and this version reads 1"),
        ('{"format": 1, "kernels": []}', "it lists no kernel"),
        (
            '{"format": 1, "kernels": [{"name": "6.1", "source": "debian:bookworm", '
            '"release": "6.1.0-1-amd64", "arch": "x86_64", "packages": []}]}',
            "the entry of '6.1' has no package",
        ),
        ('{"format": 1, "kernels": [{}]}', "KeyError: 'source'"),
        ('{"format": 1, "kernels": [{"source": "x", "packages": [1]}]}', "1 is no package"),
        ('{"format": 1, "kernels": [{"source": "x", "packages": [{"name": "a"}]}]}', "KeyError: 'sha256'"),
        (
            '{"format": 1, "kernels": [{"source": "x", "packages": '
            '[{"name": "a", "sha256": "", "version": "", "more": ""}]}]}',
            "{'name': 'a', 'sha256': '', 'version': '', 'more': ''} has fields that no package has",
        ),
    ],
)
def test_no_lock(text: str | None, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    if text is not None:
        lockfile.DEFAULT.write_text(text)
    assert main(["kernels", "fetch", "--locked"]) == 1
    said = capsys.readouterr().err
    assert f"bpfmaps: cannot read lock kernels.lock: {why}" in said
    delete = "" if text is None else "rm kernels.lock && "
    assert f"-> make a new lock of the stored kernels: {delete}bpfmaps kernels lock" in said


def test_a_folder_in_place_of_the_lock(capsys: pytest.CaptureFixture[str]) -> None:
    lockfile.DEFAULT.mkdir()
    assert main(["kernels", "fetch", "--locked"]) == 1
    assert "lock of the stored kernels: rm -r kernels.lock && bpfmaps" in capsys.readouterr().err


def test_a_damaged_lock_is_deleted_and_made_again(archive: Archive, make: Make, catalogue: Catalogue) -> None:
    archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    fetch("debian:bookworm", catalogue, Silent())
    lockfile.DEFAULT.write_text("{")
    assert main(["kernels", "lock"]) == 1
    lockfile.DEFAULT.unlink()
    assert main(["kernels", "lock"]) == 0
    assert lockfile.read(lockfile.DEFAULT)


def test_empty_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "lock"]) == 1
    assert "the catalogue is empty" in capsys.readouterr().err


def test_lock_for_another_machine(catalogue: Catalogue) -> None:
    kernel = lockfile.Locked("6.1", "debian:bookworm", "6.1.0-7-arm64", "aarch64", ())
    with pytest.raises(VmError, match="it is for aarch64, and this machine is x86_64"):
        lockfile.restore(kernel, catalogue, Silent())
