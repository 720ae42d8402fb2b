"""Fuzzes packages and container images: damage is an error of this package, and nothing else is written."""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from container_images import FILES, Layout, layer
from damage import damages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_files import RELEASE, package_files, rpm
from mutations import how_many, mutated

from pytest_bpfmaps.errors import BpfError
from pytest_bpfmaps.vm.kernels import lockfile
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.fetch import fetch
from pytest_bpfmaps.vm.kernels.progress import Silent

Link = tuple[bytes, str, str]

_TOOLS = ("rpmbuild", "bsdtar", "depmod")
_MISSING = [tool for tool in _TOOLS if not shutil.which(tool, path="/usr/bin:/bin:/usr/sbin:/sbin")]
pytestmark = [
    pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)}"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64"),
]
FEW = settings(
    max_examples=how_many(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rpm(tmp_path_factory.mktemp("rpm"), "kernel", "6.1.9", package_files())


def stored_or_refused(folder: Path, store: Callable[[Catalogue], object]) -> None:
    """Stores a kernel in a catalogue of its own, which can be read after it, also after a refusal."""
    before = sorted(p.name for p in folder.iterdir())
    catalogue = Catalogue(folder / "kernels")
    with contextlib.suppress(BpfError):
        store(catalogue)
    for kernel in catalogue:
        assert kernel.image.is_file()
        json.dumps(kernel.to_json())
    assert not list(folder.glob("kernels/.new/*"))
    shutil.rmtree(folder / "kernels", ignore_errors=True)
    assert sorted(p.name for p in folder.iterdir()) == before


@FEW
@given(damage=damages())
def test_rpm(tmp_path: Path, package: Path, damage: Callable[[bytes], bytes]) -> None:
    damaged = tmp_path / "kernel.rpm"
    damaged.write_bytes(damage(package.read_bytes()))
    stored_or_refused(tmp_path, lambda catalogue: catalogue.add(damaged))


@FEW
@given(seed=st.integers(0, 1 << 32))
def test_rpm_with_extreme_numbers_in_its_header(tmp_path: Path, package: Path, seed: int) -> None:
    damaged = tmp_path / "kernel.rpm"
    damaged.write_bytes(mutated(package.read_bytes(), seed, within=(0, 2000)))
    stored_or_refused(tmp_path, lambda catalogue: catalogue.add(damaged))


LAYER = layer(FILES, "plain", ((tarfile.SYMTYPE, "lib", "usr/lib"),))
COMPRESSED = {kind: layer(FILES, kind) for kind in ("gzip", "zstd")}


def fetched_or_refused(folder: Path, *layers: bytes) -> None:
    layout = Layout(folder / "layout")
    layout.add(layout.manifest(*layers))
    stored_or_refused(folder, lambda catalogue: fetch(f"oci:{layout.folder}", catalogue, Silent()))
    shutil.rmtree(layout.folder)


@FEW
@given(seed=st.integers(0, 1 << 32), blocks=st.integers(1, 12))
def test_a_layer_with_damaged_headers(tmp_path: Path, seed: int, blocks: int) -> None:
    """Its digest fits, as that of an image that somebody else has made."""
    fetched_or_refused(tmp_path, mutated(LAYER, seed, within=(0, 512 * blocks)))


@FEW
@given(kind=st.sampled_from(["gzip", "zstd"]), damage=damages())
def test_a_damaged_compressed_layer(tmp_path: Path, kind: str, damage: Callable[[bytes], bytes]) -> None:
    fetched_or_refused(tmp_path, damage(COMPRESSED[kind]))


PATHS = ["boot/vmlinuz", "boot", "lib", "usr/lib/modules", f"lib/modules/{RELEASE}", "boot/vmlinuz/x"]
PATHS += [".", "..", "/", "a/../b", "../../x", "/etc/x", "boot//vmlinuz", "x" * 300, "\x1b]0;x\x07"]
PATHS += ["boot/.wh.vmlinuz", "boot/.wh..wh..opq", "lib/modules/.wh."]
NAMES = st.sampled_from(PATHS)
LINKS = st.tuples(
    st.sampled_from([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]),
    NAMES,
    NAMES,
)


@FEW
@given(layers=st.lists(st.tuples(st.dictionaries(NAMES, st.binary(max_size=9)), st.lists(LINKS)), max_size=3))
def test_layers_with_odd_names(tmp_path: Path, layers: list[tuple[dict[str, bytes], list[Link]]]) -> None:
    made = [layer(files, "gzip", tuple(links)) for files, links in layers]
    fetched_or_refused(tmp_path, layer(FILES), *made)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
FACTS = {
    "index": ("mediaType", "digest", "size", "platform"),
    "manifest": ("schemaVersion", "mediaType", "config", "layers"),
    "layer": ("mediaType", "digest", "size"),
}
CHANGES = st.sampled_from([(place, fact) for place, facts in FACTS.items() for fact in facts])


@FEW
@given(change=CHANGES, value=JSON)
def test_an_image_with_odd_facts(tmp_path: Path, change: tuple[str, str], value: object) -> None:
    """One of the values in its JSON is another one."""
    layout = Layout(tmp_path / "layout")
    layout.add(layout.manifest(layer(FILES)))
    index = layout.folder / "index.json"
    manifests = json.loads(index.read_bytes())["manifests"]
    manifest = json.loads(blob(layout, manifests[0]).read_bytes())
    place, fact = change
    {"index": manifests[0], "manifest": manifest, "layer": manifest["layers"][0]}[place][fact] = value
    if place != "index":
        manifests = [layout.blob(json.dumps(manifest).encode(), "manifest.v1+json")]
    index.write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    try:
        stored_or_refused(tmp_path, lambda catalogue: fetch(f"oci:{layout.folder}", catalogue, Silent()))
    finally:
        shutil.rmtree(layout.folder)


def blob(layout: Layout, descriptor: dict[str, str]) -> Path:
    return layout.folder / "blobs" / descriptor["digest"].replace(":", "/")


@FEW
@given(data=st.data())
def test_a_lock_with_odd_facts(tmp_path: Path, data: st.DataObject) -> None:
    entry = {
        "name": "6.1",
        "source": "oci:layout",
        "release": RELEASE,
        "arch": "x86_64",
        "packages": [{"name": "layout", "version": "", "sha256": "0" * 64}],
    }
    facts = data.draw(st.sampled_from([entry, entry["packages"][0]]))
    facts[data.draw(st.sampled_from(sorted(facts)))] = data.draw(JSON)
    lock = tmp_path / "kernels.lock"
    lock.write_text(json.dumps(data.draw(st.sampled_from([{"kernels": [entry]}, [entry], entry]))))

    def restore(catalogue: Catalogue) -> None:
        for locked in lockfile.read(lock):
            lockfile.restore(locked, catalogue, Silent())

    stored_or_refused(tmp_path, restore)
