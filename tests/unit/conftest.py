"""Makes a signed package archive for the tests that fetch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel_files import deb
from package_archive import Archive, Keys

from pytest_bpfmaps.vm.kernels import apt_sources


@pytest.fixture(scope="session")
def keys() -> Iterator[Keys]:
    with tempfile.TemporaryDirectory(dir="/tmp") as home:  # gpg's agent needs a short path for its socket
        keys = Keys(Path(home))
        yield keys
        keys.close()


@pytest.fixture
def archive(tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Archive:
    archive = Archive(tmp_path / "archive", keys, monkeypatch)
    monkeypatch.setattr(apt_sources, "TEMPLATES", tmp_path / "templates")
    archive.use()
    return archive


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    return lambda *arguments: deb(tmp_path, *arguments)
