"""Tests `fetch` with a small signed archive on this machine: real apt, real signatures, no network."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_files import bzimage
from package_archive import Archive, Keys, kernel_packages

from pytest_bpfmaps.cache import stored_files
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.debian import fetch
from pytest_bpfmaps.vm.kernels.progress import Silent

_TOOLS = ("apt-get", "dpkg-deb", "gpg", "depmod")
_MISSING = [tool for tool in _TOOLS if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
pytestmark = [
    pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)}"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64"),
]


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "kernels")


def test_kernel_comes_complete(archive: Archive, make: Callable[..., Path], catalogue: Catalogue) -> None:
    archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    kernel, new = fetch("debian:bookworm", catalogue, Silent())
    assert new
    assert (kernel.name, kernel.release, kernel.source) == ("6.1", "6.1.0-7-amd64", "debian:bookworm")
    assert kernel.modules == catalogue.root / "6.1"
    assert (kernel.modules / "lib/modules/6.1.0-7-amd64/modules.dep").exists()
    assert kernel.config is not None
    (package,) = kernel.to_json()["packages"]
    assert (package["name"], package["version"]) == ("linux-image-6.1.0-7-amd64", "6.1.20-1")
    assert sorted(p.name for p in (catalogue.root / "6.1").iterdir() if p.is_file()) == [
        "btf",
        "kernel.json",
        "vmlinux",
    ]


def test_second_fetch_downloads_nothing(
    archive: Archive, make: Callable[..., Path], catalogue: Catalogue
) -> None:
    archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    first, _ = fetch("debian:bookworm", catalogue, Silent())
    shutil.rmtree(archive.root / "pool")
    assert fetch("debian:bookworm", catalogue, Silent()) == (first, False)


@pytest.mark.parametrize("which", ["*_InRelease", "*_Packages*"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_lists_are_got_again_once(
    archive: Archive, make: Callable[..., Path], catalogue: Catalogue, which: str, damage: str
) -> None:
    archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    first, _ = fetch("debian:bookworm", catalogue, Silent())
    path = next((catalogue.root / ".apt/debian-bookworm/lists").glob(which))
    before = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        os.truncate(path, len(before) // 2)
    else:
        before[len(before) // 2] ^= 4
        path.write_bytes(before)
    lines: list[str] = []
    with stored_files.listening(lines.append):
        assert fetch("debian:bookworm", catalogue, Silent()) == (first, False)
        assert fetch("debian:bookworm", catalogue, Silent()) == (first, False)
    said = f"the package lists in {path.parent} are fetched again: {path.name} was damaged"
    assert lines == ([] if damage == "gone" else [said])


def test_newer_kernel_of_the_suite_replaces(
    archive: Archive, make: Callable[..., Path], catalogue: Catalogue
) -> None:
    archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    fetch("debian:bookworm", catalogue, Silent())
    archive.suite("bookworm", kernel_packages(make, "6.1.0-8-amd64", "6.1.21-1"))
    fetch("debian:bookworm", catalogue, Silent())
    assert [k.release for k in catalogue] == ["6.1.0-8-amd64"]
    assert not list((catalogue.root / "6.1").rglob("*6.1.0-7*"))


@pytest.mark.parametrize("place", ["bookworm-updates", "bookworm-security"])
def test_updates_and_security_are_looked_at(
    archive: Archive, make: Callable[..., Path], catalogue: Catalogue, place: str
) -> None:
    archive.use(suites="bookworm bookworm-security")
    archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    archive.suite(place, kernel_packages(make, "6.1.0-8-amd64", "6.1.21-1"))
    kernel, _ = fetch("debian:bookworm", catalogue, Silent())
    assert kernel.release == "6.1.0-8-amd64"


def test_split_packages(archive: Archive, make: Callable[..., Path], catalogue: Catalogue) -> None:
    release, version = "7.2.1+deb14-amd64", "7.2.1-1"
    modules = f"usr/lib/modules/{release}"
    exact = f"(= {version})"
    archive.suite(
        "sid",
        [
            make(f"linux-base-{release}", version, {f"{modules}/config": b"CONFIG_BPF=y\n"}),
            make(f"linux-binary-{release}", version, {f"{modules}/vmlinuz": bzimage(release)}),
            make(f"linux-modules-{release}", version, {f"{modules}/kernel/fs/9p/9p.ko.xz": b"x"}),
            make(
                f"linux-image-{release}",
                version,
                {},
                f"dracut | initramfs-tools, linux-base-{release} {exact}, linux-binary-{release} {exact}, "
                f"linux-modules-{release} {exact}",
            ),
            make(
                "linux-image-amd64", version, {}, f"linux-base-amd64 {exact}, linux-image-{release} {exact}"
            ),
        ],
    )
    kernel, _ = fetch("debian:sid", catalogue, Silent())
    assert kernel.name == "7.2"
    assert kernel.config is not None
    assert kernel.modules is not None
    assert (kernel.modules / "lib/modules" / release / "kernel/fs/9p/9p.ko.xz").is_file()


def test_ubuntu(
    archive: Archive, make: Callable[..., Path], catalogue: Catalogue, keys: Keys, tmp_path: Path
) -> None:
    archive.use(keyring=Path(shutil.copy(keys.keyring, tmp_path / "ubuntu-archive-test.gpg")), suites="noble")
    release, version = "6.8.0-31-generic", "6.8.0-31.31"
    modules = f"lib/modules/{release}/kernel"
    archive.suite(
        "jammy",
        [
            make(
                f"linux-modules-{release}", version, {f"boot/config-{release}": b"", f"{modules}/a.ko": b"x"}
            ),
            make(f"linux-modules-extra-{release}", version, {f"{modules}/fs/9p/9p.ko": b"x"}),
            make(
                f"linux-image-{release}",
                version,
                {f"boot/vmlinuz-{release}": bzimage(release)},
                f"kmod, linux-base, linux-modules-{release}",
            ),
            make(
                "linux-image-generic",
                version,
                {},
                f"linux-image-{release}, linux-modules-extra-{release}, linux-firmware",
            ),
        ],
        origin="Ubuntu",
    )
    kernel, _ = fetch("ubuntu:jammy", catalogue, Silent())
    assert (kernel.name, kernel.release, kernel.source) == ("6.8", release, "ubuntu:jammy")
    assert kernel.modules is not None
    assert kernel.config is not None
    assert (kernel.modules / modules / "a.ko").exists()
    assert (kernel.modules / modules / "fs/9p/9p.ko").exists()
    with pytest.raises(VmError, match="none of this system's package sources is an archive of Debian"):
        fetch("debian:bookworm", catalogue, Silent())


def test_name_and_a_taken_name(archive: Archive, make: Callable[..., Path], catalogue: Catalogue) -> None:
    archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    archive.suite("sid", kernel_packages(make, "6.1.0-9-amd64", "6.1.30-1"))
    fetch("debian:bookworm", catalogue, Silent())
    with pytest.raises(VmError, match=r"that name belongs to 6\.1\.0-7-amd64 from debian:bookworm"):
        fetch("debian:sid", catalogue, Silent())
    kernel, _ = fetch("debian:sid", catalogue, Silent(), "next")
    assert kernel.name == "next"
    assert catalogue.names() == ["6.1", "next"]


def test_killed_fetch_leaves_nothing_behind(
    archive: Archive, make: Callable[..., Path], catalogue: Catalogue
) -> None:
    archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    code = f"""if True:
        import os, pathlib, signal
        from pytest_bpfmaps.vm.kernels import debian
        from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
        from pytest_bpfmaps.vm.kernels.progress import Silent
        debian.complete = lambda *args, **more: os.kill(os.getpid(), signal.SIGKILL)
        debian.fetch("debian:bookworm", Catalogue(pathlib.Path({str(catalogue.root)!r})), Silent())
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert catalogue.names() == []
    (half,) = (catalogue.root / ".new").iterdir()
    assert list(half.rglob("vmlinuz-*"))
    fetch("debian:bookworm", catalogue, Silent())
    assert catalogue.names() == ["6.1"]
    assert list((catalogue.root / ".new").iterdir()) == []


def test_parallel_fetches_of_one_suite(
    archive: Archive, make: Callable[..., Path], catalogue: Catalogue
) -> None:
    archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
    command = [sys.executable, "-m", "pytest_bpfmaps.cli", "kernels", "fetch", "debian:bookworm"]
    environment = {**os.environ, "BPFMAPS_CACHE": str(catalogue.root.parent)}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    results = [(*process.communicate(), process.returncode) for process in running]
    assert [code for _, _, code in results] == [0, 0, 0], results
    assert sorted("is up to date" in out for out, _, _ in results) == [False, True, True]
    assert catalogue.names() == ["6.1"]


class TestErrors:
    def test_unknown_suite(self, archive: Archive, make: Callable[..., Path], catalogue: Catalogue) -> None:
        with pytest.raises(VmError, match=r"the mirror file:.* has no suite 'bokworm'") as caught:
            fetch("debian:bokworm", catalogue, Silent())
        assert "did you mean 'bookworm'?" in str(caught.value)
        assert not (catalogue.root / ".apt/debian-bokworm").exists()

    @pytest.mark.parametrize("spec", ["bookworm", "debian:", ":sid", "debian:a b", "debian:../../x", ""])
    def test_wrong_form(self, catalogue: Catalogue, spec: str) -> None:
        with pytest.raises(VmError, match="cannot fetch kernel"):
            fetch(spec, catalogue, Silent())

    def test_unknown_distribution(self, catalogue: Catalogue) -> None:
        with pytest.raises(
            VmError, match=r"this command does not know the distribution 'debain'.*\n.*did you mean 'debian'"
        ):
            fetch("debain:sid", catalogue, Silent())

    def test_distribution_that_the_system_has_no_source_of(
        self, archive: Archive, catalogue: Catalogue
    ) -> None:
        with pytest.raises(VmError, match="none of this system's package sources is an archive of Ubuntu"):
            fetch("ubuntu:noble", catalogue, Silent())

    def test_mirror_out_of_reach(self, archive: Archive, catalogue: Catalogue) -> None:
        archive.use(uri="http://127.0.0.1:9/debian")
        with pytest.raises(VmError, match=r"the mirror 127\.0\.0\.1:9 can't be reached") as caught:
            fetch("debian:bookworm", catalogue, Silent())
        assert "connect" in str(caught.value)
        assert catalogue.names() == []

    def test_an_index_that_is_out_of_date(
        self, archive: Archive, make: Callable[..., Path], catalogue: Catalogue
    ) -> None:
        packages = kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1")
        archive.suite("bookworm", packages, valid_until="Fri, 02 Jan 2026 00:00:00 UTC")
        archive.use()
        with pytest.raises(VmError, match=r"the index of 'bookworm' on .* is out of date") as caught:
            fetch("debian:bookworm", catalogue, Silent())
        assert caught.value.fix is not None
        remedy = re.search(r"write '(.*)' into /etc/apt/apt\.conf\.d/(\S+)", caught.value.fix)
        assert remedy is not None
        (archive.settings / remedy[2]).write_text(remedy[1])
        fetch("debian:bookworm", catalogue, Silent())
        assert catalogue.names() == ["6.1"]

    def test_signature_of_an_unknown_key(
        self, archive: Archive, make: Callable[..., Path], catalogue: Catalogue, tmp_path: Path
    ) -> None:
        archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
        archive.use(keyring=_empty_keyring(tmp_path))
        with pytest.raises(
            VmError, match="the signature of 'bookworm' can't be verified with the keys in"
        ) as caught:
            fetch("debian:bookworm", catalogue, Silent())
        assert "debian-archive-keyring" in str(caught.value)
        assert catalogue.names() == []

    def test_unsigned_archive(
        self, archive: Archive, make: Callable[..., Path], catalogue: Catalogue
    ) -> None:
        archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"), sign=False)
        with pytest.raises(VmError, match="the signature of 'bookworm' can't be verified"):
            fetch("debian:bookworm", catalogue, Silent())
        assert catalogue.names() == []

    def test_package_that_was_tampered_with(
        self, archive: Archive, make: Callable[..., Path], catalogue: Catalogue
    ) -> None:
        archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
        (package,) = archive.root.glob("pool/linux-image-6*")
        data = bytearray(package.read_bytes())
        data[-9] ^= 1
        package.write_bytes(data)
        with pytest.raises(VmError, match=r"cannot fetch linux-image-6\.1\.0-7-amd64") as caught:
            fetch("debian:bookworm", catalogue, Silent())
        assert "Hash Sum mismatch" in str(caught.value)
        assert catalogue.names() == []
        assert list((catalogue.root / ".new").iterdir()) == []

    def test_archive_of_somebody_else(
        self, archive: Archive, make: Callable[..., Path], catalogue: Catalogue
    ) -> None:
        archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"), origin="Vendor")
        with pytest.raises(VmError, match="is not an archive of Debian"):
            fetch("debian:bookworm", catalogue, Silent())

    def test_suite_without_a_kernel(
        self, archive: Archive, make: Callable[..., Path], catalogue: Catalogue
    ) -> None:
        archive.suite("bookworm", [make("hello", "1", {})])
        with pytest.raises(VmError, match="the suite has no package linux-image-amd64"):
            fetch("debian:bookworm", catalogue, Silent())

    def test_suite_without_an_index(self, archive: Archive, catalogue: Catalogue) -> None:
        archive.suite("bookworm", [], component="contrib")
        with pytest.raises(VmError, match=r"the mirror file:.* has no package index for main"):
            fetch("debian:bookworm", catalogue, Silent())

    def test_no_apt(self, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(VmError, match="this system has no apt-get") as caught:
            fetch("debian:bookworm", catalogue, Silent())
        assert "bpfmaps kernels add PATH" in str(caught.value)

    def test_full_disk(
        self,
        archive: Archive,
        make: Callable[..., Path],
        catalogue: Catalogue,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        archive.suite("bookworm", kernel_packages(make, "6.1.0-7-amd64", "6.1.20-1"))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 20}))
        with pytest.raises(VmError, match=r"it needs \d+ MB for a while, and 1 MB are free"):
            fetch("debian:bookworm", catalogue, Silent())


def _empty_keyring(folder: Path) -> Path:
    """Makes a keyring with the key of another archive."""
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        other = Keys(Path(home))
        try:
            return Path(shutil.copy(other.keyring, folder / "debian-archive-other.gpg"))
        finally:
            other.close()
