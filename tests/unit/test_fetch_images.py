"""Tests kernels in container images: in local layouts, and in a registry on this machine."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from container_images import FILES, Layout, layer, registry
from kernel_files import RELEASE, bzimage, vmlinux, write

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels import lockfile
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.fetch import fetch
from pytest_bpfmaps.vm.kernels.package import Package
from pytest_bpfmaps.vm.kernels.progress import Silent

_TOOLS = ("depmod", "zstd")
_MISSING = [tool for tool in _TOOLS if not shutil.which(tool, path="/usr/bin:/bin:/usr/sbin:/sbin")]
pytestmark = [
    pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)}"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64"),
]
MODULES = f"usr/lib/modules/{RELEASE}"


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "kernels")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
def test_layout_of_cilium(catalogue: Catalogue, layout: Layout, kind: str) -> None:
    data = layer(FILES, kind, ((tarfile.SYMTYPE, "lib", "usr/lib"),))
    digest = layout.add(layout.manifest(data), "6.1")
    kernel, new = fetch(f"oci:{layout.folder}:6.1", catalogue, Silent())
    assert new
    assert (kernel.name, kernel.release) == ("6.1", RELEASE)
    assert kernel.source == f"oci:{layout.folder}:6.1"
    assert kernel.image.name == f"vmlinuz-{RELEASE}"
    assert kernel.modules is not None
    modules = kernel.modules / "lib/modules" / RELEASE
    assert (modules / "modules.dep").read_text() == "kernel/net/bpf_testmod.ko:\n"
    assert kernel.to_json()["packages"] == [{"name": "layout", "version": "6.1", "sha256": digest}]
    assert sorted(p.name for p in (catalogue.root / "6.1").iterdir() if p.is_dir()) == ["boot", "lib"]
    assert not list((catalogue.root / ".new").iterdir())


def test_configuration_is_taken_out_of_the_kernel(catalogue: Catalogue, layout: Layout) -> None:
    image = bzimage(kernel=vmlinux(config=b"CONFIG_BPF_JIT=y\n"))
    layout.add(layout.manifest(layer({"boot/vmlinuz": image})))
    kernel, _ = fetch(f"oci:{layout.folder}", catalogue, Silent())
    assert kernel.config is not None
    assert kernel.config.read_text() == "CONFIG_BPF_JIT=y\n"


def test_second_fetch_does_nothing_until_the_tag_moves(catalogue: Catalogue, layout: Layout) -> None:
    layout.add(layout.manifest(layer(FILES)), "6.1")
    spec = f"oci:{layout.folder}:6.1"
    first, _ = fetch(spec, catalogue, Silent())
    assert fetch(spec, catalogue, Silent()) == (first, False)
    layout.add(layout.manifest(layer({"boot/vmlinuz": bzimage("6.1.9")})), "6.1")
    kernel, new = fetch(spec, catalogue, Silent())
    assert (kernel.release, new) == ("6.1.9", True)
    assert catalogue.names() == ["6.1"]


def test_image_for_several_machines(catalogue: Catalogue, layout: Layout) -> None:
    unknown = layout.manifest(layer({}), arch="unknown")  # buildx calls this an attestation
    other = layout.manifest(layer({"boot/vmlinuz": b"for arm64"}), arch="arm64")
    digest = layout.add(layout.index(other, unknown, layout.manifest(layer(FILES))), "6.1")
    kernel, _ = fetch(f"oci:{layout.folder}:6.1", catalogue, Silent())
    assert kernel.release == RELEASE
    assert kernel.packages[0].sha256 == digest


def test_layers_hide_files_of_lower_ones(catalogue: Catalogue, layout: Layout) -> None:
    lower = {
        **FILES,
        f"{MODULES}/kernel/a/one.ko": b"1",
        f"{MODULES}/kernel/a/two.ko": b"2",
        f"{MODULES}/kernel/b/three.ko": b"3",
        f"{MODULES}/kernel/c/four.ko": b"4",
        f"{MODULES}/kernel/file": b"5",
        f"{MODULES}/kernel/folder/five.ko": b"6",
    }
    upper = {
        f"./{MODULES}/kernel/a/.wh.one.ko": b"",
        f"{MODULES}/kernel/b/new.ko": b"new",
        f"{MODULES}/kernel/b/.wh..wh..opq": b"",
        f"{MODULES}/kernel/.wh.c": b"",
        f"{MODULES}/kernel/file/six.ko": b"7",
        f"{MODULES}/kernel/folder": b"8",
    }
    link = (tarfile.LNKTYPE, f"{MODULES}/kernel/b/linked.ko", f"{MODULES}/kernel/b/new.ko")
    layout.add(layout.manifest(layer(lower), layer(upper, "zstd", (link,))))
    kernel, _ = fetch(f"oci:{layout.folder}", catalogue, Silent())
    assert kernel.modules is not None
    root = kernel.modules / "lib/modules" / RELEASE / "kernel"
    files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    del files["net/bpf_testmod.ko"]
    assert files == {
        "a/two.ko": b"2",
        "b/new.ko": b"new",
        "b/linked.ko": b"new",
        "file/six.ko": b"7",
        "folder": b"8",
    }


def test_names_that_lead_out_of_the_image(catalogue: Catalogue, layout: Layout, tmp_path: Path) -> None:
    kept = write(tmp_path / "kernels", {"kept": b"x", ".new/kept": b"x"})
    up = "../" * 12
    hostile = {
        f"boot/{up}{tmp_path}/evil": b"",
        f"{tmp_path}/evil": b"",
        "boot/.wh...": b"",
        "boot/.wh..": b"",
        "boot/.wh.": b"",
        ".wh...": b"",
        "../.wh.kept": b"",
        "../../../.wh.kept": b"",
    }
    links = (
        (tarfile.SYMTYPE, "usr/lib/modules/x", str(tmp_path)),
        (tarfile.LNKTYPE, "boot/evil", str(kept / "kept")),
        (tarfile.LNKTYPE, "boot/evil", "../../../../kept"),
    )
    layout.add(
        layout.manifest(layer(FILES), layer(hostile, links=links), layer({"usr/lib/modules/x/y": b""}))
    )
    fetch(f"oci:{layout.folder}", catalogue, Silent())
    assert (kept / "kept").exists()
    assert not list(tmp_path.rglob("evil"))
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize("whole_name", [False, True])
def test_archive(catalogue: Catalogue, layout: Layout, tmp_path: Path, whole_name: bool) -> None:
    tag = "docker.io/ci/kernels:6.1" if whole_name else "6.1"
    layout.add(layout.manifest(layer(FILES)), tag)
    layout.add(layout.manifest(layer({})), "other")
    archive = layout.archive(tmp_path / "image.tar")
    kernel, _ = fetch(f"oci:{archive}:6.1", catalogue, Silent())
    assert (kernel.release, kernel.source) == (RELEASE, f"oci:{archive}:6.1")
    assert {p.name for p in catalogue.root.iterdir()} == {"6.1", ".new", ".locks"}
    assert list((catalogue.root / ".new").iterdir()) == []


def test_add_and_select(catalogue: Catalogue, layout: Layout, tmp_path: Path) -> None:
    layout.add(layout.manifest(layer(FILES)), "6.1")
    kernel = catalogue.add(layout.archive(tmp_path / "image.tar"))
    assert (kernel.name, kernel.release, len(kernel.packages)) == ("6.1", RELEASE, 1)
    (kernel,) = catalogue.select(str(layout.folder))
    assert kernel.release == RELEASE
    layout.add(layout.manifest(layer({"boot/vmlinuz": bzimage("6.1.9")})), "6.1")
    (kernel,) = catalogue.select(str(layout.folder))
    assert kernel.release == "6.1.9"


class TestErrors:
    def test_damaged_blob(self, catalogue: Catalogue, layout: Layout) -> None:
        descriptor = layout.manifest(layer(FILES))
        layout.add(descriptor)
        manifest = layout.folder / "blobs" / descriptor["digest"].replace(":", "/")
        (data,) = json.loads(manifest.read_bytes())["layers"]
        for blob in (manifest, manifest.with_name(data["digest"].removeprefix("sha256:"))):
            content = blob.read_bytes()
            blob.write_bytes(content[:-1] + b"x")
            with pytest.raises(VmError, match=f"cannot trust blob sha256:{blob.name} of .*: its content has"):
                fetch(f"oci:{layout.folder}", catalogue, Silent())
            blob.write_bytes(content)
        assert catalogue.names() == []

    def test_missing_blob(self, catalogue: Catalogue, layout: Layout) -> None:
        descriptor = layout.manifest(layer(FILES))
        layout.add(descriptor)
        (layout.folder / "blobs" / descriptor["digest"].replace(":", "/")).unlink()
        with pytest.raises(VmError, match=r"cannot read blob .*: No such file"):
            fetch(f"oci:{layout.folder}", catalogue, Silent())

    @pytest.mark.parametrize("digest", ["md5:00", "sha256:../../../x", "sha256:" + "A" * 64, None])
    def test_impossible_digest(self, catalogue: Catalogue, layout: Layout, digest: str) -> None:
        layout.add({"mediaType": "x", "digest": digest, "size": 1})
        with pytest.raises(VmError, match=r"neither sha256 nor sha512|no sha256"):
            fetch(f"oci:{layout.folder}", catalogue, Silent())

    @pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
    def test_layer_that_is_cut_short(self, catalogue: Catalogue, layout: Layout, kind: str) -> None:
        data = layer(FILES, kind)
        layout.add(layout.manifest(data[: min(len(data) // 2, 1500)]))
        with pytest.raises(VmError, match="cannot unpack layer sha256:"):
            fetch(f"oci:{layout.folder}", catalogue, Silent())
        assert catalogue.names() == []

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"manifests": [1, {}]}', '{"manifests": {}}'])
    def test_damaged_index(self, catalogue: Catalogue, layout: Layout, text: str) -> None:
        (layout.folder / "index.json").write_text(text)
        for spec in (f"oci:{layout.folder}", f"oci:{layout.folder}:6.1"):
            with pytest.raises(VmError):
                fetch(spec, catalogue, Silent())

    def test_archive_that_is_cut_short(self, catalogue: Catalogue, layout: Layout, tmp_path: Path) -> None:
        layout.add(layout.manifest(layer(FILES)))
        archive = layout.archive(tmp_path / "image.tar")
        archive.write_bytes(archive.read_bytes()[:2000])
        with pytest.raises(VmError, match="it is no OCI image layout"):
            fetch(f"oci:{archive}", catalogue, Silent())

    def test_other_machine(self, catalogue: Catalogue, layout: Layout) -> None:
        layout.add(layout.index(layout.manifest(layer(FILES), arch="arm64")), "6.1")
        with pytest.raises(VmError, match="it is for linux/arm64, and this machine is linux/amd64"):
            fetch(f"oci:{layout.folder}:6.1", catalogue, Silent())

    def test_tags(self, catalogue: Catalogue, layout: Layout) -> None:
        for tag in ("6.1", "6.6"):
            layout.add(layout.manifest(layer({**FILES, tag: b""})), tag)
        with pytest.raises(VmError, match=r"no image '6\.7'") as caught:
            fetch(f"oci:{layout.folder}:6.7", catalogue, Silent())
        assert "did you mean '6.6' or '6.1'?" in str(caught.value)
        with pytest.raises(VmError, match=r"it has 2 images for this machine: 6\.1, 6\.6") as caught:
            fetch(f"oci:{layout.folder}", catalogue, Silent())
        assert f"bpfmaps kernels fetch oci:{layout.folder}:6.1" in str(caught.value)

    def test_image_without_a_kernel(self, catalogue: Catalogue, layout: Layout) -> None:
        layout.add(layout.manifest(layer({"bin/sh": b""})))
        with pytest.raises(VmError, match="it has neither boot/vmlinuz nor"):
            fetch(f"oci:{layout.folder}", catalogue, Silent())

    @pytest.mark.parametrize(
        "spec", ["oci:/nonexistent", "oci:/nonexistent:6.1", "oci:/etc", "oci:/etc/passwd"]
    )
    def test_no_layout(self, catalogue: Catalogue, spec: str) -> None:
        with pytest.raises(VmError, match=r"it is no OCI image layout|there is no /nonexistent") as caught:
            fetch(spec, catalogue, Silent())
        assert "skopeo copy docker://" in str(caught.value)

    def test_no_skopeo(self, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(VmError, match="this system has no skopeo") as caught:
            fetch("oci://localhost/ci/kernels:6.1", catalogue, Silent())
        assert "skopeo copy docker://localhost/ci/kernels:6.1 oci:FOLDER:TAG" in str(caught.value)

    @pytest.mark.parametrize("spec", ["oci://", "oci://kernels", "docker://a b/c", "oci://x/y@sha256:12"])
    def test_no_reference(self, catalogue: Catalogue, spec: str) -> None:
        with pytest.raises(VmError, match="cannot fetch kernel"):
            fetch(spec, catalogue, Silent())


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
class TestRegistry:
    @pytest.fixture
    def address(self, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        with registry(layout, tmp_path) as address:
            yield address

    @pytest.mark.parametrize("scheme", ["oci", "docker"])
    def test_fetch(self, catalogue: Catalogue, layout: Layout, address: str, scheme: str) -> None:
        other = layout.manifest(layer({"boot/vmlinuz": b"for arm64"}), arch="arm64")
        digest = layout.add(layout.index(other, layout.manifest(layer(FILES))), "6.1")
        spec = f"{scheme}://{address}/ci/kernels:6.1"
        kernel, new = fetch(spec, catalogue, Silent())
        assert (kernel.name, kernel.release, kernel.source, new) == ("6.1", RELEASE, spec, True)
        (package,) = kernel.to_json()["packages"]
        assert package == {"name": f"{address}/ci/kernels", "version": "6.1", "sha256": digest}
        assert fetch(spec, catalogue, Silent()) == (kernel, False)
        layout.add(layout.manifest(layer({"boot/vmlinuz": bzimage("6.1.9")})), "6.1")
        assert fetch(spec, catalogue, Silent())[0].release == "6.1.9"

    def test_lock(self, catalogue: Catalogue, layout: Layout, address: str, tmp_path: Path) -> None:
        layout.add(layout.manifest(layer(FILES)), "6.1")
        kernel, _ = fetch(f"oci://{address}/ci/kernels:6.1", catalogue, Silent())
        lockfile.write(tmp_path / "kernels.lock", catalogue)
        layout.add(layout.manifest(layer({"boot/vmlinuz": bzimage("6.1.9")})), "6.1")
        catalogue.remove("6.1")
        (locked,) = lockfile.read(tmp_path / "kernels.lock")
        assert lockfile.restore(locked, catalogue, Silent()) == (kernel, True)
        gone = dataclasses.replace(locked, packages=(Package("x", "0" * 64),))
        with pytest.raises(VmError, match="skopeo failed"):
            lockfile.restore(gone, catalogue, Silent())
        assert catalogue.get("6.1").release == RELEASE

    def test_by_digest(self, catalogue: Catalogue, layout: Layout, address: str) -> None:
        digest = layout.add(layout.manifest(layer(FILES)))
        kernel, _ = fetch(f"oci://{address}/ci/kernels@sha256:{digest}", catalogue, Silent())
        assert kernel.release == RELEASE

    def test_unknown_tag(self, catalogue: Catalogue, address: str) -> None:
        with pytest.raises(VmError, match=r"cannot fetch kernel .*: skopeo failed\n.*reading manifest 9\.9"):
            fetch(f"oci://{address}/ci/kernels:9.9", catalogue, Silent())
        assert catalogue.names() == []
