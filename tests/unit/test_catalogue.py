from __future__ import annotations

import dataclasses
import io
import json
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from kernel_files import BTF, RELEASE, bzimage, deb, elf, package_files, vmlinux, write

from pytest_bpfmaps import paths
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.kernel import Kernel

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64"),
    pytest.mark.skipif(
        not shutil.which("depmod", path="/usr/sbin:/sbin:/usr/bin"), reason="needs kmod's depmod"
    ),
]


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "kernels")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write(tmp_path, {"bzImage": bzimage()}) / "bzImage"


def add_releases(catalogue: Catalogue, folder: Path, *releases: str) -> None:
    for release in releases:
        catalogue.add(write(folder, {f"image-{release}": bzimage(release)}) / f"image-{release}")


def test_default_root_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path))
    assert Catalogue().root == paths.kernels_dir() == tmp_path / "kernels"


def test_empty_catalogue(catalogue: Catalogue) -> None:
    assert list(catalogue) == []
    with pytest.raises(VmError, match=r"no kernel '6\.1': the catalogue has none yet") as caught:
        catalogue.get("6.1")
    assert "bpfmaps kernels fetch debian:bookworm" in str(caught.value)


class TestAdd:
    def test_image(self, catalogue: Catalogue, image: Path) -> None:
        kernel = catalogue.add(image)
        assert (kernel.name, kernel.release, kernel.arch) == ("6.1", RELEASE, "x86_64")
        assert kernel.source == str(image)
        assert kernel.image == catalogue.root / "6.1" / "boot" / f"vmlinuz-{RELEASE}"
        assert kernel.image.read_bytes() == image.read_bytes()
        assert kernel.btf is not None
        assert kernel.btf.read_bytes() == BTF
        assert kernel.vmlinux is not None
        assert kernel.vmlinux.read_bytes() == vmlinux()
        assert kernel.modules is None
        assert kernel.config is None
        assert kernel.size > len(BTF)

    def test_uncompressed_image(self, catalogue: Catalogue, tmp_path: Path) -> None:
        kernel = catalogue.add(write(tmp_path, {"vmlinux": vmlinux("6.9.1")}) / "vmlinux")
        assert kernel.name == "6.9"
        assert kernel.image.read_bytes() == vmlinux("6.9.1")

    def test_config_inside_of_the_image(self, catalogue: Catalogue, tmp_path: Path) -> None:
        data = bzimage(kernel=vmlinux(config=b"CONFIG_BPF_JIT=y\n"))
        kernel = catalogue.add(write(tmp_path, {"bzImage": data}) / "bzImage")
        assert kernel.config is not None
        assert kernel.config.read_text() == "CONFIG_BPF_JIT=y\n"

    def test_kernel_that_can_not_boot_uncompressed(self, catalogue: Catalogue, tmp_path: Path) -> None:
        data = bzimage(kernel=vmlinux(pvh=False, btf=None))
        kernel = catalogue.add(write(tmp_path, {"bzImage": data}) / "bzImage")
        assert kernel.vmlinux is None
        assert kernel.btf is None

    def test_unpacked_package(self, catalogue: Catalogue, tmp_path: Path) -> None:
        check_package(catalogue.add(write(tmp_path / "package", package_files())))

    def test_index_of_an_installed_kernel_is_kept(self, catalogue: Catalogue, tmp_path: Path) -> None:
        files = {
            **package_files(),
            f"lib/modules/{RELEASE}/modules.dep": b"kernel/fs/9p/9p.ko: kernel/net.ko\n",
        }
        kernel = catalogue.add(write(tmp_path / "package", files))
        assert kernel.modules is not None
        index = kernel.modules / "lib/modules" / RELEASE / "modules.dep"
        assert index.read_bytes() == b"kernel/fs/9p/9p.ko: kernel/net.ko\n"

    def test_installed_image_brings_its_modules(self, catalogue: Catalogue, tmp_path: Path) -> None:
        package = write(tmp_path / "package", package_files())
        check_package(catalogue.add(package / "boot" / f"vmlinuz-{RELEASE}"))

    def test_package_with_everything_beside_the_modules(self, catalogue: Catalogue, tmp_path: Path) -> None:
        modules = f"usr/lib/modules/{RELEASE}"
        files = {
            f"{modules}/vmlinuz": bzimage(),
            f"{modules}/config": b"CONFIG_BPF=y\n",
            f"{modules}/kernel/fs/9p/9p.ko.xz": b"x",
        }
        kernel = catalogue.add(write(tmp_path / "package", files))
        assert kernel.image.name == f"vmlinuz-{RELEASE}"
        assert kernel.config is not None
        assert (catalogue.root / "6.1/lib/modules" / RELEASE / "kernel/fs/9p/9p.ko.xz").exists()

    @pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg")
    def test_debian_package(self, catalogue: Catalogue, tmp_path: Path) -> None:
        other = {"usr/share/doc/x/copyright": b"text", "etc/x": b"y"}
        package = deb(tmp_path, f"linux-image-{RELEASE}", "6.1.9-1", {**package_files(), **other})
        check_package(catalogue.add(package))
        assert sorted(p.name for p in (catalogue.root / "6.1").iterdir()) == [
            "boot",
            "btf",
            "kernel.json",
            "lib",
            "vmlinux",
        ]

    @pytest.mark.parametrize("order", ["kernel/fs/9p/9p.ko\n", "fs/9p/9p.ko\n", "fs/9p/9p.o\n"])
    def test_build_tree(self, catalogue: Catalogue, tmp_path: Path, order: str) -> None:
        tree = {
            "arch/x86/boot/bzImage": bzimage(),
            ".config": b"CONFIG_BPF=y\n",
            "System.map": b"ffffffff81000000 T its_function\n",
            "modules.order": order.encode(),
            "modules.builtin": b"kernel/fs/ext4/ext4.ko\n",
            "fs/9p/9p.ko": elf({".modinfo": b"license=GPL\0"}, type=1),
        }
        kernel = catalogue.add(write(tmp_path / "linux", tree))
        check_package(kernel)
        assert (kernel.image.parent / f"System.map-{RELEASE}").read_bytes() == tree["System.map"]

    def test_name(self, catalogue: Catalogue, image: Path) -> None:
        assert catalogue.add(image, "mine").name == "mine"
        assert catalogue.names() == ["mine"]

    @pytest.mark.parametrize("name", ["all", "host", "newest", "a/b", "..", ".x", "", "6.*", "a b", "6.1\n"])
    def test_impossible_name(self, catalogue: Catalogue, image: Path, name: str) -> None:
        with pytest.raises(VmError, match="cannot name a kernel"):
            catalogue.add(image, name)

    def test_same_source_replaces(self, catalogue: Catalogue, image: Path) -> None:
        catalogue.add(image)
        image.write_bytes(bzimage("6.1.0-8-amd64"))
        catalogue.add(image)
        assert [k.release for k in catalogue] == ["6.1.0-8-amd64"]

    def test_name_of_another_source_is_kept(self, catalogue: Catalogue, image: Path, tmp_path: Path) -> None:
        catalogue.add(image)
        other = write(tmp_path, {"other": bzimage("6.1.99")}) / "other"
        with pytest.raises(VmError, match=r"that name belongs to 6\.1\.0-7-amd64 from .*/bzImage") as caught:
            catalogue.add(other)
        assert "bpfmaps kernels remove 6.1" in str(caught.value)
        assert catalogue.get("6.1").release == RELEASE

    def test_modules_of_another_kernel(self, catalogue: Catalogue, tmp_path: Path) -> None:
        files = {f"boot/vmlinuz-{RELEASE}": bzimage("6.1.1"), "lib/modules/6.1.2/modules.order": b""}
        package = deb(tmp_path, "linux-image", "1", files)
        with pytest.raises(VmError, match=r"the image is release 6\.1\.1, the modules are for 6\.1\.2"):
            catalogue.add(package)
        assert_nothing_stored(catalogue)

    def test_package_without_a_kernel(self, catalogue: Catalogue, tmp_path: Path) -> None:
        with pytest.raises(VmError, match=r"it has no boot/vmlinuz-\* file"):
            catalogue.add(deb(tmp_path, "doc", "1", {"usr/share/doc/x": b"y"}))
        assert_nothing_stored(catalogue)

    def test_damaged_package(self, catalogue: Catalogue, tmp_path: Path) -> None:
        package = deb(tmp_path, "linux-image", "1", package_files())
        package.write_bytes(package.read_bytes()[:1000])
        with pytest.raises(VmError, match=r"cannot unpack .*linux-image_1_amd64\.deb"):
            catalogue.add(package)
        assert_nothing_stored(catalogue)

    @pytest.mark.skipif(not shutil.which("ar"), reason="needs binutils")
    def test_hostile_package(self, catalogue: Catalogue, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        package = _hostile_deb(tmp_path, outside)
        catalogue.add(package)
        tree = catalogue.root / "6.1"
        assert not outside.exists()
        assert not [p for p in tree.rglob("*") if p.is_symlink()]
        assert not list(tree.rglob("evil*"))

    def test_missing_path(self, catalogue: Catalogue, tmp_path: Path) -> None:
        with pytest.raises(VmError, match="there is no such file or folder"):
            catalogue.add(tmp_path / "none")

    def test_folder_without_a_kernel(self, catalogue: Catalogue, tmp_path: Path) -> None:
        with pytest.raises(VmError, match=r"neither boot/vmlinuz nor arch/x86/boot/bzImage"):
            catalogue.add(tmp_path)
        assert_nothing_stored(catalogue)


def _hostile_deb(folder: Path, outside: Path) -> Path:
    """Makes a package that dpkg-deb would not build: links and paths that lead out of it."""
    package = deb(folder, "linux-image", "1", package_files())
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        up = "../" * 12
        for name in (f"./lib/modules/x/{up}{outside}", f"/lib/modules/x/{up}{outside}", "boot/../evil-1"):
            archive.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("lib/modules/x/evil-link")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
        for name, content in package_files().items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (folder / "data.tar.gz").write_bytes(data.getvalue())
    subprocess.run(["ar", "r", str(package), str(folder / "data.tar.gz")], check=True, capture_output=True)
    return package


def check_package(kernel: Kernel) -> None:
    """Makes the kernel of `package_files`, and completes it."""
    assert kernel.release == RELEASE
    assert kernel.modules == kernel.image.parent.parent
    assert kernel.config is not None
    assert kernel.config.read_text() == "CONFIG_BPF=y\n"
    modules = kernel.modules / "lib" / "modules" / RELEASE
    assert (modules / "kernel/fs/9p/9p.ko").is_file()
    assert (modules / "modules.dep").read_text() == "kernel/fs/9p/9p.ko:\n"


def assert_nothing_stored(catalogue: Catalogue) -> None:
    assert catalogue.names() == []
    assert list((catalogue.root / ".new").iterdir()) == []


class TestRead:
    def test_versions_are_sorted_as_numbers(self, catalogue: Catalogue, tmp_path: Path) -> None:
        add_releases(catalogue, tmp_path, "6.12.1", "5.10.0-46-amd64", "6.1.0", "7.2.0")
        catalogue.add(tmp_path / "image-6.1.0", "mine")
        assert catalogue.names() == ["5.10", "6.1", "6.12", "7.2", "mine"]

    def test_unknown_name_tells_the_known_and_the_closest(self, catalogue: Catalogue, tmp_path: Path) -> None:
        add_releases(catalogue, tmp_path, "5.10.1", "6.1.0")
        with pytest.raises(VmError, match=r"no kernel '6\.11': the catalogue has 5\.10, 6\.1") as caught:
            catalogue.get("6.11")
        assert "did you mean '6.1'" in str(caught.value)
        assert "bpfmaps kernels fetch v6.11" in str(caught.value)
        with pytest.raises(VmError, match="kernels fetch debian:trixie"):
            catalogue.get("6.12")

    @pytest.mark.parametrize("name", ["", ".", "..", ".new", "../kernels/6.1", "/etc"])
    def test_names_are_no_paths(self, catalogue: Catalogue, image: Path, name: str) -> None:
        catalogue.add(image)
        with pytest.raises(VmError, match="no kernel"):
            catalogue.get(name)

    def test_half_a_folder_is_a_damaged_kernel(self, catalogue: Catalogue, image: Path) -> None:
        catalogue.add(image)
        shutil.copytree(catalogue.root / "6.1", catalogue.root / "6.2")
        (catalogue.root / "6.2" / "kernel.json").write_text('{"format": 1')
        (catalogue.root / "6.3").mkdir()
        assert catalogue.names() == ["6.1"]
        for name in ("6.2", "6.3"):
            with pytest.raises(VmError, match=rf"cannot use kernel '{name}': its stored files are damaged"):
                catalogue.get(name)
        assert set(catalogue.damaged()) == {"6.2", "6.3"}

    def test_json_has_what_the_dataclass_has(self, catalogue: Catalogue, image: Path) -> None:
        kernel = catalogue.add(image)
        facts = json.loads(json.dumps(kernel.to_json()))
        assert facts["image"] == str(kernel.image)
        assert facts["modules"] is None
        assert set(facts) == {field.name for field in dataclasses.fields(Kernel)}


class TestSelect:
    @pytest.fixture(autouse=True)
    def kernels(self, catalogue: Catalogue, tmp_path: Path) -> None:
        add_releases(catalogue, tmp_path, "5.10.1", "6.1.1", "6.12.1", "7.2.1")

    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("6.1", ["6.1"]),
            ("6.*", ["6.1", "6.12"]),
            ("[57].*", ["5.10", "7.2"]),
            ("all", ["5.10", "6.1", "6.12", "7.2"]),
            ("newest", ["7.2"]),
            ("newest:6.*", ["6.12"]),
            ("newest:6.1", ["6.1"]),
        ],
    )
    def test_by_name(self, catalogue: Catalogue, pattern: str, names: list[str]) -> None:
        assert [k.name for k in catalogue.select(pattern)] == names

    @pytest.mark.parametrize("names", [("mine", "yours"), ("yours", "mine")])
    def test_newest_goes_by_release(
        self, catalogue: Catalogue, tmp_path: Path, names: tuple[str, str]
    ) -> None:
        images = write(tmp_path, {"rc": bzimage("7.10.0-rc6"), "final": bzimage("7.10.0")})
        for name, image in zip(names, ("rc", "final"), strict=True):
            catalogue.add(images / image, name)
        assert [k.release for k in catalogue.select("newest")] == ["7.10.0"]

    @pytest.mark.parametrize("pattern", ["6.2", "4.*", "", "newest:4.*", "newest:", "oldest:6.*"])
    def test_nothing_fits(self, catalogue: Catalogue, pattern: str) -> None:
        with pytest.raises(VmError, match=r"the catalogue has 5\.10, 6\.1, 6\.12, 7\.2"):
            catalogue.select(pattern)

    def test_image_is_used_and_not_stored(self, catalogue: Catalogue, tmp_path: Path) -> None:
        image = write(tmp_path, {"bzImage": bzimage("6.9.0-rc1")}) / "bzImage"
        (kernel,) = catalogue.select(str(image))
        assert (kernel.name, kernel.release) == ("6.9.0-rc1", "6.9.0-rc1")
        assert kernel.btf is not None
        assert kernel.btf.read_bytes() == BTF
        assert catalogue.names() == ["5.10", "6.1", "6.12", "7.2"]

    def test_build_tree_in_the_working_folder(
        self, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path / "linux", {"arch/x86/boot/bzImage": bzimage("6.9.0-rc1")})
        monkeypatch.chdir(tmp_path)
        assert [k.release for k in catalogue.select("linux")] == ["6.9.0-rc1"]

    def test_path_is_read_again_only_after_a_change(self, catalogue: Catalogue, tmp_path: Path) -> None:
        image = write(tmp_path, {"bzImage": bzimage("6.9.1")}) / "bzImage"
        (first,) = catalogue.select(str(image))
        inode = first.image.stat().st_ino
        (again,) = catalogue.select(str(image))
        assert again.image.stat().st_ino == inode
        image.write_bytes(bzimage("6.9.2"))
        (changed,) = catalogue.select(str(image))
        assert changed.release == "6.9.2"

    def test_paths_that_are_gone_are_forgotten(self, catalogue: Catalogue, tmp_path: Path) -> None:
        for name in ("one", "two"):
            catalogue.select(str(write(tmp_path / name, {"bzImage": bzimage()}) / "bzImage"))
        shutil.rmtree(tmp_path / "one")
        catalogue.select(str(write(tmp_path / "three", {"bzImage": bzimage()}) / "bzImage"))
        kept = {Kernel.read(tree).source for tree in (catalogue.root / ".ad-hoc").iterdir()}
        assert kept == {str(tmp_path / "two/bzImage"), str(tmp_path / "three/bzImage")}

    def test_path_that_is_missing_or_no_kernel(self, catalogue: Catalogue, tmp_path: Path) -> None:
        with pytest.raises(VmError, match="No such file"):
            catalogue.select(str(tmp_path / "none"))
        write(tmp_path, {"notes.txt": b"hello\n" * 100})
        with pytest.raises(VmError, match="it is a text file"):
            catalogue.select(str(tmp_path / "notes.txt"))


class TestRemove:
    def test_remove(self, catalogue: Catalogue, tmp_path: Path) -> None:
        add_releases(catalogue, tmp_path, "5.10.1", "6.1.1")
        catalogue.remove("6.1")
        assert catalogue.names() == ["5.10"]
        assert not (catalogue.root / "6.1").exists()

    def test_damaged_kernel_can_be_removed(self, catalogue: Catalogue, image: Path) -> None:
        catalogue.add(image)
        (catalogue.root / "6.1" / "kernel.json").unlink()
        catalogue.remove("6.1")
        assert not (catalogue.root / "6.1").exists()

    @pytest.mark.parametrize("name", ["6.2", "..", ".locks", ""])
    def test_unknown_name(self, catalogue: Catalogue, image: Path, name: str) -> None:
        catalogue.add(image)
        with pytest.raises(VmError, match="nothing to remove"):
            catalogue.remove(name)
        assert catalogue.names() == ["6.1"]


def test_a_loop_of_links_is_no_kernel(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(VmError, match="there is no such file or folder"):
        catalogue.add(tmp_path / "loop")
    with pytest.raises(VmError):
        catalogue.select(str(tmp_path / "loop"))
