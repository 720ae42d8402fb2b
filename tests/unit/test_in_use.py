"""Tests that no other process removes what a run uses: kernels, and states that guests run from."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from kernel_files import bzimage

from pytest_bpfmaps import cli
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.boot import saved_states
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

only_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@contextmanager
def another_process(program: str) -> Iterator[int]:
    """Runs `program` in a process that lives until the end of the block, and yields its id."""
    code = f"{program}\nprint('ready', flush=True)\ninput()\n"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.communicate("\n")


@only_x86
class TestKernels:
    USES = "from pytest_bpfmaps.vm.kernels.catalogue import Catalogue; used = Catalogue().get('6.1').in_use()"

    @pytest.fixture(autouse=True)
    def stored(self, cache: Path, tmp_path: Path) -> None:
        (tmp_path / "bzImage").write_bytes(bzimage())
        self.image = tmp_path / "bzImage"
        Catalogue().add(self.image)

    def test_it_is_not_removed(self, capsys: pytest.CaptureFixture[str]) -> None:
        with another_process(self.USES) as pid:
            assert cli.main(["kernels", "remove", "6.1"]) == 1
            assert capsys.readouterr().err == (
                f"bpfmaps: cannot remove kernel '6.1': a run uses it: process {pid}\n"
                "  -> wait until that has ended, or end it\n"
                "  see: bpfmaps docs cannot-store-kernel\n"
            )
            assert Catalogue().get("6.1").image.exists()
        assert cli.main(["kernels", "remove", "6.1"]) == 0
        assert Catalogue().names() == []

    def test_it_is_not_replaced(self) -> None:
        with (
            another_process(self.USES),
            pytest.raises(VmError, match=r"cannot replace kernel '6\.1': a run uses it"),
        ):
            Catalogue().add(self.image)
        assert Catalogue().add(self.image).image.exists()

    def test_one_that_was_killed_holds_nothing(self) -> None:
        with another_process(self.USES) as pid:
            os.kill(pid, 9)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            Catalogue().remove("6.1")

    def test_two_runs_use_it_and_close_twice(self) -> None:
        kernel = Catalogue().get("6.1")
        with kernel.in_use() as one, kernel.in_use():
            one.close()
            with pytest.raises(VmError):
                Catalogue().remove("6.1")
        Catalogue().remove("6.1")


def state(name: str, manifest: str | None = None) -> saved_states.SavedState:
    made = saved_states.SavedState(saved_states.folder() / name)
    made.path.mkdir(parents=True)
    for part in saved_states.PARTS:
        made.part(part).write_bytes(b"x" * 5000)
    made.write_manifest("6.1", "6.1.0", [str(made.path.parent)])
    if manifest is not None:
        (made.path / "manifest.json").write_text(manifest)
    made.close_to_others()
    return made


class TestStates:
    def test_one_that_a_guest_runs_from_stays(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """QEMU inherits the descriptor that has the lock. The process that opened it may end."""
        used, other = state("6.1-a"), state("6.1-b")
        opened = used.open()
        assert opened
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=opened[:1]) as qemu:
            for fd in opened:
                os.close(fd)
            assert cli.main(["vm", "gc", "--all"]) == 0
            said = capsys.readouterr().out
            assert used.path.exists()
            assert not other.path.exists()
            assert "kept    6.1" in said
            assert said.count("(a guest runs from it)") == 1
            assert saved_states.remove_outdated() == []
            qemu.communicate()
        assert cli.main(["vm", "gc", "--all"]) == 0
        assert not used.path.exists()

    def test_what_is_opened_while_it_is_replaced_is_what_is_there_then(self, cache: Path) -> None:
        used = state("6.1-a")
        with ThreadPoolExecutor() as pool, used.memory.open() as old:
            fcntl.flock(old, fcntl.LOCK_EX)  # a process that deletes states does the same
            opening = pool.submit(used.open)
            used.memory.unlink()
            used.memory.write_bytes(b"new")
            used.memory.chmod(0o600)
            old.close()
            opened = opening.result()
        if opened:  # None: it noticed the deletion, and its caller tries again
            assert os.path.samestat(os.fstat(opened[0]), used.memory.stat())
            for fd in opened:
                os.close(fd)

    @pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": 3}', "null", '{"kernel": "6.1", "rel'])
    def test_a_damaged_one_is_listed_and_deleted(
        self, cache: Path, manifest: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for verb in (["gc"], ["gc", "--all"]):
            made = state("6.1-a", manifest)
            assert cli.main(["vm", "list"]) == 0
            assert capsys.readouterr().out == "6.1-a  (damaged)\n"
            assert cli.main(["vm", "list", "--json"]) == 0
            assert json.loads(capsys.readouterr().out)[0]["damaged"] is True
            assert cli.main(["vm", *verb]) == 0
            assert capsys.readouterr().out.startswith("deleted 6.1-a")
            assert not made.path.exists()
