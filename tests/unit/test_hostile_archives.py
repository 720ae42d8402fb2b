"""Tests that archives and images which would use up memory, time or the disk are refused, and named.

Each case runs in a process with little memory and an alarm, so that no fault harms this machine.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import signal
import sys
import tarfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels import oci_layout
from pytest_bpfmaps.vm.kernels.name_grammar import checked
from pytest_bpfmaps.vm.kernels.package_files import unpack

_MEMORY, _SECONDS = 1 << 30, 120
_END = bytes(1024)


def refused(work: Callable[[], Any]) -> str:
    """Returns the message of the VmError that `work` raises in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            signal.alarm(_SECONDS)
            said = f"no error: {work()!r}"
        except VmError as error:
            said = f"VmError: {error}"
        except BaseException:
            said = traceback.format_exc()
        os.write(writing, said.encode()[:60000])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0, "it hung"
    assert said.startswith("VmError: "), said
    return said


def header(name: str, size: int, type: bytes = b"0") -> bytes:
    """Returns the header of a member. `tarfile` itself writes no negative size."""
    info = tarfile.TarInfo(name)
    info.type = type
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block[:512])


def archive(*files: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def announced(kind: bytes) -> bytes:
    """Makes a file of 2 MB with a member whose name or attributes have 2 GB."""
    end = gzip.compress(header("boot/vmlinuz-6.1", 0) + _END)
    return gzip.compress(header("././@LongLink", 2 << 30, kind)) + zeros(2 << 30) + end


def zeros(size: int) -> bytes:
    """Makes many gzip members with `size` bytes together; one of that size would take long to make."""
    return gzip.compress(bytes(1 << 23)) * (size >> 23)


@pytest.fixture(scope="module")
def bombs() -> dict[bytes, bytes]:
    return {kind: announced(kind) for kind in (b"L", b"x")}


def deb(folder: Path, data: bytes) -> Path:
    path, out = folder / "hostile.deb", b"!<arch>\n"
    control = archive(("control", b"Package: a\nVersion: 1\nArchitecture: all\n"))
    parts = (("debian-binary", b"2.0\n"), ("control.tar.gz", gzip.compress(control)), ("data.tar.gz", data))
    for name, content in parts:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    path.write_bytes(out)
    return path


def layout(folder: Path, index: object, *blobs: bytes) -> Path:
    (folder / "blobs" / "sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_bytes(index if isinstance(index, bytes) else json.dumps(index).encode())
    for blob in blobs:
        (folder / "blobs" / "sha256" / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    return folder


def descriptor(blob: bytes) -> dict[str, str]:
    return {"digest": f"sha256:{hashlib.sha256(blob).hexdigest()}"}


def image(folder: Path, *layers: bytes) -> Path:
    manifest = json.dumps({"layers": [descriptor(layer) for layer in layers]}).encode()
    return layout(folder, {"manifests": [descriptor(manifest)]}, manifest, *layers)


def unpack_image(path: Path, work: Path, tag: str | None = None) -> None:
    (work / "root").mkdir()
    with oci_layout.opened(path, work) as opened:
        opened.image(tag).unpack(work / "root")


@pytest.mark.parametrize("kind", [b"L", b"x"])
def test_a_name_of_two_gigabytes(tmp_path: Path, bombs: dict[bytes, bytes], kind: bytes) -> None:
    package = deb(tmp_path, bombs[kind])
    assert "names or attributes of a member are too large\n  -> look at what it is" in refused(
        lambda: unpack(package, tmp_path)
    )
    hostile = image(tmp_path / "image", bombs[kind])
    assert "names or attributes" in refused(lambda: unpack_image(hostile, tmp_path))


def test_attributes_in_a_long_row(tmp_path: Path) -> None:
    """The parser calls itself for each level."""
    row = (header("././@LongLink", 0, b"L")) * 3000 + header("boot/vmlinuz-6.1", 0) + _END
    package = deb(tmp_path, gzip.compress(row))
    assert "names or attributes" in refused(lambda: unpack(package, tmp_path))


def test_a_negative_size(tmp_path: Path) -> None:
    """It leads a reader to the same member again, without end."""
    backwards = header("boot/vmlinuz-6.1", -512) + _END
    package = deb(tmp_path, gzip.compress(backwards))
    assert "a size of -512 bytes" in refused(lambda: unpack(package, tmp_path))
    hostile = image(tmp_path / "image", backwards)
    assert "a size of -512 bytes" in refused(lambda: unpack_image(hostile, tmp_path))
    packed = tmp_path / "image.tar"
    packed.write_bytes(header("oci-layout", 0) + header("index.json", -512) + _END)
    assert "a size of -512 bytes" in refused(lambda: unpack_image(packed, tmp_path / "image"))


def test_a_size_that_attributes_make_negative(tmp_path: Path) -> None:
    text = b"15 size=-00512\n"
    packed = header("././@PaxHeader", len(text), b"x") + text.ljust(512, b"\0") + header("boot/x", 0) + _END
    package = deb(tmp_path, gzip.compress(packed))
    said = refused(lambda: unpack(package, tmp_path))
    # newer Pythons take such a header for the end of the archive
    assert "a size of -512 bytes" in said or "it is empty" in said


def test_files_without_content_take_room(tmp_path: Path) -> None:
    files = [(f"lib/modules/6.1/kernel/{number}", b"") for number in range(20_000)]
    package = deb(tmp_path, gzip.compress(archive(*files)))
    assert "more than 30 times its size" in refused(lambda: unpack(package, tmp_path))


def test_what_is_not_wanted_is_not_read_for_ever(tmp_path: Path) -> None:
    packed = gzip.compress(header("usr/share/doc", 1 << 30)) + zeros(1 << 30) + gzip.compress(_END)
    package = deb(tmp_path, packed)
    assert "bytes come out of it" in refused(lambda: unpack(package, tmp_path))


@pytest.mark.parametrize("special", ["a pipe", "/dev/zero"])
def test_a_blob_that_is_no_file(tmp_path: Path, special: str) -> None:
    """A pipe may have no first byte, and a device no last one."""
    hostile = layout(tmp_path / "image", {"manifests": [{"digest": f"sha256:{'0' * 64}"}]})
    blob = hostile / "blobs" / "sha256" / ("0" * 64)
    if special == "a pipe":
        os.mkfifo(blob)
    else:
        blob.symlink_to(special)
    assert "it is no file" in refused(lambda: unpack_image(hostile, tmp_path))


_DEEP = b"[" * 100_000 + b"]" * 100_000
_INDEXES: list[object] = [
    [],
    3,
    {"manifests": "text"},
    {"manifests": [1, 2]},
    _DEEP,
    b'{"manifests": ' + _DEEP + b"}",
]
_INDEXES += [
    {"manifests": [{"annotations": [1]}, {"platform": [1]}]},
    {"manifests": [{"digest": 5}]},
    b"\xff{}",
]
_MANIFESTS: list[object] = [
    {"manifests": 3},
    {"manifests": "text"},
    {"manifests": [1]},
    {"layers": [{}]},
    _DEEP,
]
_MANIFESTS += [{"manifests": [{"platform": [1]}]}, 3, {"layers": [{"digest": "sha256:../../../etc/passwd"}]}]


@pytest.mark.parametrize("index", _INDEXES, ids=lambda index: str(index)[:40])
def test_an_index_of_other_types(tmp_path: Path, index: object) -> None:
    hostile = layout(tmp_path / "image", index)
    refused(lambda: unpack_image(hostile, tmp_path))
    refused(lambda: unpack_image(hostile, tmp_path / "image", "a-tag"))


@pytest.mark.parametrize("manifest", _MANIFESTS, ids=lambda manifest: str(manifest)[:40])
def test_a_manifest_of_other_types(tmp_path: Path, manifest: object) -> None:
    blob = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    hostile = layout(tmp_path / "image", {"manifests": [descriptor(blob)]}, blob)
    refused(lambda: unpack_image(hostile, tmp_path))


@pytest.mark.parametrize("name", ["\x1b[31mred", "\u202egnp.exe"])
def test_names_that_change_a_terminal_are_not_shown(tmp_path: Path, name: str) -> None:
    named = {"annotations": {"org.opencontainers.image.ref.name": name}}
    hostile = layout(tmp_path / "image", {"manifests": [named, named]})
    said = refused(lambda: unpack_image(hostile, tmp_path, "other"))
    assert "there are none" in said
    assert name not in said
    with pytest.raises(ValueError, match="is no source"):
        checked("source", f"oci:{name}")


def test_a_tool_that_says_much_does_not_hang(tmp_path: Path) -> None:
    """Its output may be longer than a pipe holds."""
    from pytest_bpfmaps.vm.kernels.checked_tar import output_of

    noise = "import sys; sys.stderr.write('no ' * 100000 + 'really'); sys.exit(3)"

    def run() -> None:
        with (
            open(os.devnull, "rb") as nothing,
            output_of([sys.executable, "-c", noise], nothing, 1) as stream,
        ):
            stream.read()

    with pytest.raises(tarfile.ReadError, match=r"no really$"):
        run()
