"""Tests `add` of RPM packages that rpmbuild makes."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
from pathlib import Path

import pytest
from kernel_files import RELEASE, bzimage, elf, package_files, rpm

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

_TOOLS = ("rpmbuild", "bsdtar", "rpm2archive", "depmod")
_FOLDERS = "/usr/bin:/bin:/usr/sbin:/sbin"
_MISSING = [tool for tool in _TOOLS if not shutil.which(tool, path=_FOLDERS)]
pytestmark = [
    pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)}"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64"),
]


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "kernels")


def only(tools: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves only these commands, and depmod, which is searched where root's commands are."""
    folder.mkdir()
    for tool in tools:
        found = shutil.which(tool, path=_FOLDERS)
        assert found is not None
        (folder / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize("payload", ["w3.zstdio", "w2.xzdio", "w6.gzdio"])
@pytest.mark.parametrize("tool", ["bsdtar", "rpm2archive"])
def test_package(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, payload: str
) -> None:
    files = {**package_files(), "usr/share/doc/x/copyright": b"text", "etc/x": b"y"}
    package = rpm(tmp_path, "kernel", "6.1.9", files, payload)
    only([tool], tmp_path / "bin", monkeypatch)
    kernel = catalogue.add(package)
    assert (kernel.name, kernel.release, kernel.source) == ("6.1", RELEASE, str(package))
    assert kernel.config is not None
    assert kernel.config.read_text() == "CONFIG_BPF=y\n"
    assert (catalogue.root / f"6.1/lib/modules/{RELEASE}/kernel/fs/9p/9p.ko").is_file()
    assert not (catalogue.root / "6.1/etc").exists()
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    assert kernel.to_json()["packages"] == [{"name": "kernel-6.1.9.rpm", "version": "", "sha256": digest}]


@pytest.mark.parametrize("tools", [["rpm2archive"], ["bsdtar", "rpm2archive"], ["bsdtar"]])
def test_the_format_of_rpm_6(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: list[str]
) -> None:
    package = rpm(tmp_path, "kernel", "6.1.9", package_files(), format=6)
    if package.read_bytes()[4] < 4:
        pytest.skip("this rpm makes packages of the format 4 only: install rpm 6")
    only(tools, tmp_path / "bin", monkeypatch)
    if "rpm2archive" in tools:
        assert catalogue.add(package).release == RELEASE
    else:
        with pytest.raises(VmError, match="has the format of rpm 6, and there is no rpm2archive"):
            catalogue.add(package)


def test_kernel_in_several_packages(catalogue: Catalogue, tmp_path: Path) -> None:
    release = "6.11.4-301.fc41.x86_64"
    modules = f"lib/modules/{release}"
    core = {f"{modules}/vmlinuz": bzimage(release), f"{modules}/config": b"CONFIG_BPF=y\n"}
    module = {f"{modules}/kernel/fs/9p/9p.ko": elf({".modinfo": b"license=GPL\0"}, type=1)}
    packages = [
        rpm(tmp_path, "kernel-core", "6.11.4", core),
        rpm(tmp_path, "kernel-modules", "6.11.4", module),
    ]
    kernel = catalogue.add(packages[0], more=packages[1:])
    assert (kernel.name, kernel.release) == ("6.11", release)
    assert kernel.source == f"{packages[0]} {packages[1]}"
    assert kernel.config is not None
    assert kernel.modules is not None
    assert (kernel.modules / modules / "kernel/fs/9p/9p.ko").is_file()
    assert len(kernel.packages) == 2


def test_no_tool(catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = rpm(tmp_path, "kernel", "6.1.9", package_files())
    only([], tmp_path / "bin", monkeypatch)
    with pytest.raises(VmError, match="no bsdtar and no rpm2archive") as caught:
        catalogue.add(package)
    assert "install libarchive-tools" in str(caught.value)
    assert catalogue.names() == []


@pytest.mark.parametrize("tool", ["bsdtar", "rpm2archive"])
@pytest.mark.parametrize("size", [50, 1000, -100])
def test_damaged_package(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, size: int
) -> None:
    package = rpm(tmp_path, "kernel", "6.1.9", package_files())
    package.write_bytes(package.read_bytes()[:size])
    only([tool], tmp_path / "bin", monkeypatch)
    with pytest.raises(VmError, match=f"cannot unpack {re.escape(str(package))}: .+") as caught:
        catalogue.add(package)
    assert "fetch it again" in str(caught.value)
    assert catalogue.names() == []
    assert list((catalogue.root / ".new").iterdir()) == []


def test_other_archive_of_that_name(catalogue: Catalogue, tmp_path: Path) -> None:
    package = shutil.make_archive(str(tmp_path / "other"), "zip", tmp_path)
    with pytest.raises(VmError, match="it is no RPM package"):
        catalogue.add(Path(package).rename(tmp_path / "kernel.rpm"))
