"""Tests guests on another machine, through ssh. A server on loopback is the other machine here."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from caches import CACHE
from qemus import qemus_for, wait_until

SSHD = "/usr/sbin/sshd"
SUITE = """
    import os
    import pytest

    def test_runs_there(bpf):
        assert os.uname().release.startswith("6.1.0-")
        assert os.environ["SSH_CONNECTION"]
        print("written there")
        assert os.getcwd() == os.environ["PWD"] == {there!r}
        assert bpf.create_map("array", value="u32", max_entries=1)[0] == 0

    def test_ends_its_guest(bpf):
        with open("/proc/sysrq-trigger", "w") as file:
            file.write("c")

    def test_after_it(bpf):
        assert bpf.create_map("array", value="u32", max_entries=1)[0] == 0

    def test_plain():
        assert os.getcwd() == {here!r}
"""


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[str]:
    """Gives what follows ``ssh=`` for a server on loopback that belongs to this user."""
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd needs this folder for its unprivileged part
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nPermitRootLogin yes\n"
    )
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    with subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.PIPE
    ) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if b"listening" in line:
                break
        options = f"-p {port} -i {folder}/user -o UserKnownHostsFile={folder}/known -o BatchMode=yes"
        try:
            yield f"{options} {getpass.getuser()}@127.0.0.1"
        finally:
            server.terminate()


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))


needs_sshd = pytest.mark.skipif(not Path(SSHD).exists(), reason="no sshd: apt install openssh-server")


@needs_sshd
def test_a_kernel_runs_on_another_machine(pytester: pytest.Pytester, ssh: str, tmp_path: Path) -> None:
    there = tmp_path / "there"
    pytester.makepyfile(test_suite=SUITE.format(there=str(there), here=str(pytester.path)))
    shutil.copytree(pytester.path, there)
    python = f"env BPFMAPS_CACHE={CACHE} {sys.executable}"
    spec = f"ssh={ssh}//bpfmaps=6.*//python={python}//chdir={there}"
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "--tx", spec, "-v", "-s")
    result.assert_outcomes(passed=3, failed=1)
    assert "written there" in result.stderr.lines
    result.stdout.fnmatch_lines(
        ["*_ test_ends_its_guest[[]6.1] _*", "VmLostError: guest died: *", "*Console of kernel 6.1*"]
    )
    assert qemus_for(there) == []
    assert qemus_for(pytester.path) == []


@needs_sshd
def test_a_guest_there_ends_with_pytest_here(pytester: pytest.Pytester, ssh: str, tmp_path: Path) -> None:
    there = tmp_path / "there"
    pytester.makepyfile("import time\ndef test_long(bpf): time.sleep(1000)")
    shutil.copytree(pytester.path, there)
    spec = f"ssh={ssh}//bpfmaps=*//python=env BPFMAPS_CACHE={CACHE} {sys.executable}//chdir={there}"
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--bpf-kernel=6.1", "--tx", spec], stdout=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: qemus_for(there))
    finally:
        run.kill()
        run.wait()
    wait_until(lambda: not qemus_for(there))


@needs_sshd
def test_a_machine_that_can_not_be_reached_is_an_error_of_its_kernel(
    pytester: pytest.Pytester, ssh: str
) -> None:
    pytester.makepyfile("def test_x(bpf): pass")
    wrong = ssh.replace("/user ", "/host ")  # a key that the server does not know
    result = pytester.runpytest_subprocess("--bpf-kernel=host,6.1", "--tx", f"ssh={wrong}//bpfmaps=6.1")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["VmError: cannot start a guest with ssh *: ssh ended with status 255: *denied*"]
    )
