"""Tests that guests have no network; with --bpf-vm-network they reach this machine through QEMU."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from caches import CACHE

SUITE = """
    import errno, os, socket
    import pytest

    @pytest.fixture
    def bpf_kernel():
        return os.uname().release

    def greeting(host):
        with socket.create_connection((host, int(os.environ["PORT"])), timeout=120) as client:
            return client.makefile().read()

    def test_without(bpf_kernel):
        assert os.listdir("/sys/class/net") == ["lo"]
        for host in ("10.0.2.2", "127.0.0.1"):
            with pytest.raises(OSError) as caught:
                greeting(host)
            assert caught.value.errno in (errno.ENETUNREACH, errno.ECONNREFUSED), host

    def test_with(bpf_kernel):
        assert sorted(os.listdir("/sys/class/net")) == ["eth0", "lo"]
        assert greeting("10.0.2.2") == "hello from the host"
        assert open("/etc/resolv.conf").read() == "nameserver 10.0.2.3\\n"
        with pytest.raises(ConnectionRefusedError):
            greeting("127.0.0.1")  # here that is the guest itself
"""


@pytest.fixture
def port() -> Iterator[int]:
    """Gives the port of a server on this machine's loopback that greets whoever connects."""

    def serve(server: socket.socket) -> None:
        while True:
            try:
                client = server.accept()[0]
            except OSError:
                return
            with client:
                client.sendall(b"hello from the host")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("way", ["warm", "virtme-ng"])
@pytest.mark.parametrize("asked", [False, True], ids=["unasked", "asked"])
def test_a_guest_has_a_network_only_if_asked(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, port: int, way: str, asked: bool
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    monkeypatch.setenv("PORT", str(port))
    resolver = Path("/etc/resolv.conf").read_bytes()
    pytester.makeconftest("")
    pytester.makepyfile(test_network=SUITE)
    pytester.makeini(f"[pytest]\nbpf_vm_network = {asked}\n" if way == "warm" else "[pytest]\n")
    arguments = ["--bpf-vm-network"] if asked and way == "virtme-ng" else []
    result = pytester.runpytest_subprocess(
        "--bpf-kernel=6.1", f"--bpf-vm={way}", *arguments, "-k", "test_with[" if asked else "test_without"
    )
    result.assert_outcomes(passed=1)
    assert Path("/etc/resolv.conf").read_bytes() == resolver
