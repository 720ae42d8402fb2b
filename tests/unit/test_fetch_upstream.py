"""Tests upstream releases. virtme-ng itself downloads them, from a server on this machine."""

from __future__ import annotations

import hashlib
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest
from kernel_files import bzimage, deb, elf

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.fetch import fetch
from pytest_bpfmaps.vm.kernels.package import Package
from pytest_bpfmaps.vm.kernels.progress import Silent

pytest.importorskip("virtme_ng", reason="needs virtme-ng")
_TOOLS = ("depmod", "dpkg-deb", "openssl")
_MISSING = [tool for tool in _TOOLS if not shutil.which(tool, path="/usr/bin:/bin:/usr/sbin:/sbin")]
pytestmark = [
    pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)}"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64"),
]
RELEASE = "6.6.0-060600-generic"
VERSION = "6.6.0-060600.202310300131"


class Mainline:
    """The mainline builds: a folder for each release, served over TLS."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def publish(self, version: str, packages: list[Path]) -> None:
        """Writes packages where virtme-ng looks for them."""
        folder = self.root / "mainline" / version / "amd64"
        folder.mkdir(parents=True)
        for package in packages:
            shutil.copy(package, folder)


@contextmanager
def serving(server: ThreadingTCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a certificate for the name of virtme-ng's server, with its key."""
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    name = "kernel.ubuntu.com"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    command += ["-keyout", str(file), "-out", f"{file}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + Path(f"{file}.crt").read_bytes())
    return file


@pytest.fixture
def mainline(tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mainline]:
    root = tmp_path / "server"
    root.mkdir()

    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object, **more: object) -> None:
            super().__init__(*arguments, directory=str(root), **more)  # type: ignore[arg-type]

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    files = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    files.socket = context.wrap_socket(files.socket, server_side=True)

    class Proxy(StreamRequestHandler):
        """Connects to the server above, for every host name."""

        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            with socket.create_connection(files.server_address[:2]) as server:
                self.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(server, self.connection))
                back.start()
                pump(self.connection, server)
                back.join()

    with serving(files), serving(ThreadingTCPServer(("127.0.0.1", 0), Proxy)) as port:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
        yield Mainline(root)


def pump(source: socket.socket, target: socket.socket) -> None:
    """Passes bytes on until their end."""
    while data := source.recv(1 << 16):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "kernels")


def packages(folder: Path) -> list[Path]:
    """Returns packages as the mainline builds have them."""
    modules = f"lib/modules/{RELEASE}"
    module = {f"{modules}/kernel/fs/9p/9p.ko": elf({".modinfo": b"license=GPL\0"}, type=1)}
    config = {f"boot/config-{RELEASE}": b"CONFIG_BPF=y\n"}
    low = "6.6.0-060600-lowlatency"
    return [
        deb(folder, f"linux-headers-{RELEASE}", VERSION, {"usr/src/x": b""}),
        deb(
            folder, f"linux-image-unsigned-{RELEASE}", VERSION, {f"boot/vmlinuz-{RELEASE}": bzimage(RELEASE)}
        ),
        deb(folder, f"linux-modules-{RELEASE}", VERSION, {**config, **module}),
        deb(folder, f"linux-image-unsigned-{low}", VERSION, {f"boot/vmlinuz-{low}": bzimage(low)}),
    ]


def test_fetch(catalogue: Catalogue, mainline: Mainline, tmp_path: Path) -> None:
    made = packages(tmp_path)
    mainline.publish("v6.6", made)
    kernel, new = fetch("v6.6", catalogue, Silent())
    assert (kernel.name, kernel.release, kernel.source, new) == ("6.6", RELEASE, "v6.6", True)
    assert kernel.config is not None
    assert kernel.modules is not None
    assert (kernel.modules / "lib/modules" / RELEASE / "kernel/fs/9p/9p.ko").is_file()
    assert kernel.to_json()["packages"] == [
        {"name": file.name, "version": "", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in made[1:3]
    ]
    assert list((catalogue.root / ".new").iterdir()) == []
    shutil.rmtree(mainline.root / "mainline")
    assert fetch("v6.6", catalogue, Silent()) == (kernel, False)


def test_what_virtme_ng_keeps_can_be_added(
    catalogue: Catalogue, mainline: Mainline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mainline.publish("v6.6", packages(tmp_path)[:3])
    monkeypatch.setenv("HOME", str(tmp_path))
    vng = Path(sys.executable).with_name("vng")
    subprocess.run([vng, "--run", "v6.6", "--dry-run"], check=False, capture_output=True)
    kernel = catalogue.add(tmp_path / ".cache/virtme-ng/v6.6/amd64")
    assert (kernel.name, kernel.release) == ("6.6", RELEASE)
    assert kernel.modules is not None


def test_version_that_was_built_anew(catalogue: Catalogue, mainline: Mainline, tmp_path: Path) -> None:
    mainline.publish("v6.6", packages(tmp_path))
    pinned = [Package("linux-modules.deb", "0" * 64)]
    with pytest.raises(VmError, match="the packages are not those of the lock"):
        fetch("v6.6", catalogue, Silent(), pinned=pinned)
    assert catalogue.names() == []


def test_modules_did_not_come(catalogue: Catalogue, mainline: Mainline, tmp_path: Path) -> None:
    mainline.publish("v6.6", packages(tmp_path)[:2])
    with pytest.raises(VmError, match=r"of its packages only linux-image-unsigned-.* were downloaded"):
        fetch("v6.6", catalogue, Silent())


def test_package_that_is_cut_short(catalogue: Catalogue, mainline: Mainline, tmp_path: Path) -> None:
    made = packages(tmp_path)
    made[2].write_bytes(made[2].read_bytes()[:-100])
    mainline.publish("v6.6", made)
    with pytest.raises(VmError, match=r"cannot unpack .*linux-modules-|of its packages only"):
        fetch("v6.6", catalogue, Silent())
    assert catalogue.names() == []


@pytest.mark.usefixtures("mainline")
def test_unknown_version(catalogue: Catalogue) -> None:
    with pytest.raises(VmError, match=r"virtme-ng got no packages\n.*404") as caught:
        fetch("v6.60", catalogue, Silent())
    assert "vng --run v6.60" in str(caught.value)


def test_server_out_of_reach(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(VmError, match=r"virtme-ng got no packages\n.*(Connection|Proxy)Error"):
        fetch("v6.6", catalogue, Silent())


def test_no_virtme_ng(catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VmError, match="virtme-ng is not installed") as caught:
        fetch("v6.6", catalogue, Silent())
    assert "pip install 'pytest-bpfmaps[vm]'" in str(caught.value)
