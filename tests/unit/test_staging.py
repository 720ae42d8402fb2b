"""Tests what other processes see while a kernel is stored, and what a killed process leaves."""

from __future__ import annotations

import fcntl
import os
import platform
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kernel_files import RELEASE, bzimage, package_files, write

from pytest_bpfmaps.cache.staging import remove_abandoned, staging
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64")


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "kernels")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write(tmp_path, {"bzImage": bzimage()}) / "bzImage"


def test_failed_build_leaves_nothing(catalogue: Catalogue) -> None:
    def build(tree: Path) -> None:
        write(tree, package_files())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        catalogue.store(build)
    assert catalogue.names() == []
    assert list((catalogue.root / ".new").iterdir()) == []


def test_leftover_of_a_killed_process_is_collected(catalogue: Catalogue) -> None:
    code = f"""if True:
        import os, pathlib, signal
        from pytest_bpfmaps.cache.staging import staging
        with staging(pathlib.Path({str(catalogue.root)!r})) as stage:
            (stage / "half").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (leftover,) = (catalogue.root / ".new").iterdir()
    assert (leftover / "half").exists()
    assert remove_abandoned(catalogue.root) == [leftover]
    assert not leftover.exists()


def test_folder_in_use_is_not_collected(tmp_path: Path) -> None:
    with staging(tmp_path) as stage:
        assert remove_abandoned(tmp_path) == []
        with staging(tmp_path) as other:
            assert stage.is_dir()
            assert other != stage


def test_child_that_outlives_its_killed_parent_holds_nothing(catalogue: Catalogue) -> None:
    code = f"""if True:
        import os, pathlib, signal, subprocess
        from pytest_bpfmaps.cache.staging import staging
        with staging(pathlib.Path({str(catalogue.root)!r})):
            child = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
            print(child.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    child = int(done.stdout)
    try:
        (leftover,) = (catalogue.root / ".new").iterdir()
        os.kill(child, 0)  # raises if it has ended
        assert remove_abandoned(catalogue.root) == [leftover]
    finally:
        os.kill(child, signal.SIGKILL)


def test_parallel_adds_of_one_name(catalogue: Catalogue, image: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        kernels = list(pool.map(lambda _: catalogue.add(image), range(16)))
    assert {k.release for k in kernels} == {RELEASE}
    assert catalogue.names() == ["6.1"]
    assert list((catalogue.root / ".new").iterdir()) == []


def test_get_waits_while_a_kernel_is_replaced(catalogue: Catalogue, image: Path) -> None:
    catalogue.add(image)
    code = f"""if True:
        import pathlib, sys, time
        from pytest_bpfmaps.cache.staging import name_lock
        root = pathlib.Path({str(catalogue.root)!r})
        with name_lock(root, "6.1"):
            (root / "6.1/kernel.json").rename(root / "saved")
            print("ready", flush=True)
            sys.stdin.readline()
            time.sleep(0.2)
            (root / "saved").rename(root / "6.1/kernel.json")
    """
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        assert catalogue.get("6.1").release == RELEASE


def test_staging_folder_taken_before_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, taken = fcntl.flock, []

    def flock_after_a_collector(handle: int, how: int) -> None:
        if not taken:
            taken.append(os.readlink(f"/proc/self/fd/{handle}"))
            os.rmdir(taken[0])
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock_after_a_collector)
    with staging(tmp_path) as stage:
        assert stage.is_dir()
        assert str(stage) not in taken
