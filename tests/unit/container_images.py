"""Makes OCI image layouts, and a registry that serves one to skopeo."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kernel_files import RELEASE, bzimage, elf

MEDIA = "application/vnd.oci.image"
FILES = {
    "boot/vmlinuz": bzimage(),
    f"usr/lib/modules/{RELEASE}/kernel/net/bpf_testmod.ko": elf({".modinfo": b"license=GPL\0"}, type=1),
    f"usr/lib/modules/{RELEASE}/modules.order": b"kernel/net/bpf_testmod.ko\n",
    "usr/src/linux/tools/testing/selftests/bpf/test.o": b"an object",
}
"""Returns the layer of cilium's ci-kernels, in which ``lib`` is a link to ``usr/lib``."""


def layer(
    files: dict[str, bytes], kind: str = "gzip", links: tuple[tuple[bytes, str, str], ...] = ()
) -> bytes:
    """Returns a compressed tar archive; each of `links` has a type of `tarfile`, a name and a target."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for type_, name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = type_, target
            archive.addfile(member)
    match kind:
        case "gzip":
            return gzip.compress(data.getvalue(), 1, mtime=0)
        case "zstd":
            command = ["zstd", "-q", "-c"]
            return subprocess.run(command, input=data.getvalue(), capture_output=True, check=True).stdout
    return data.getvalue()


class Layout:
    """An OCI image layout in `folder`, to which tests add images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self._images: list[dict[str, Any]] = []
        self._write()

    def _write(self) -> None:
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self._images}))

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        """Stores `data`, and returns its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": f"{MEDIA}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    def manifest(self, *layers: bytes, arch: str = "amd64") -> dict[str, Any]:
        """Stores an image, and returns its descriptor, with its platform."""
        compressions = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}
        diffs = ["sha256:" + "0" * 64 for _ in layers]
        config = {"os": "linux", "architecture": arch, "rootfs": {"type": "layers", "diff_ids": diffs}}
        value = {
            "schemaVersion": 2,
            "mediaType": f"{MEDIA}.manifest.v1+json",
            "config": self.blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": [self.blob(d, "layer.v1.tar" + compressions.get(d[:2], "")) for d in layers],
        }
        descriptor = self.blob(json.dumps(value).encode(), "manifest.v1+json")
        return {**descriptor, "platform": {"os": "linux", "architecture": arch}}

    def index(self, *manifests: dict[str, Any]) -> dict[str, Any]:
        """Stores an index of images for several platforms, and returns its descriptor."""
        value = {"schemaVersion": 2, "mediaType": f"{MEDIA}.index.v1+json", "manifests": manifests}
        return self.blob(json.dumps(value).encode(), "index.v1+json")

    def add(self, descriptor: dict[str, Any], tag: str | None = None) -> str:
        """Publishes an image, and returns its SHA-256."""
        name = {"annotations": {"org.opencontainers.image.ref.name": tag}} if tag else {}
        self._images = [i for i in self._images if not tag or i.get("annotations") != name["annotations"]]
        self._images.append({**descriptor, **name})
        self._write()
        return str(descriptor["digest"]).removeprefix("sha256:")

    def archive(self, target: Path) -> Path:
        """Returns the layout as a tar archive, as ``skopeo copy … oci-archive:`` makes it."""
        with tarfile.open(target, "w") as archive:
            archive.add(self.folder, ".")
        return target

    def find(self, reference: str) -> dict[str, Any]:
        """Returns the descriptor of a tag or digest. Raises StopIteration."""
        blob = self.folder / "blobs" / reference.replace(":", "/")
        if blob.is_file():
            kind = json.loads(blob.read_bytes())["mediaType"]
            return {"mediaType": kind, "digest": reference}
        tags = ((i.get("annotations") or {}).get("org.opencontainers.image.ref.name") for i in self._images)
        return next(i for i, tag in zip(self._images, tags, strict=True) if tag == reference)


@contextmanager
def registry(layout: Layout, home: Path) -> Iterator[str]:
    """Serves `layout` as the repository ``ci/kernels`` at an address. The user of `home` needs no TLS.

    Source: the OCI distribution specification, "Pull".
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.strip("/").split("/")
            kind, data = "application/json", b"{}"
            try:
                if parts[-2] == "manifests":
                    found = layout.find(parts[-1])
                    kind, parts[-1] = found["mediaType"], found["digest"]
                if len(parts) > 2:
                    data = (layout.folder / "blobs" / parts[-1].replace(":", "/")).read_bytes()
            except (OSError, StopIteration, IndexError):
                if len(parts) > 2:
                    self.send_error(404)
                    return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"127.0.0.1:{server.server_port}"
    conf = home / ".config/containers/registries.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
