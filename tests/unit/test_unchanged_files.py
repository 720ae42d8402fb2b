"""What is remembered of a file is never used after a change of the file."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_bpfmaps.cache import unchanged_files
from pytest_bpfmaps.cache.unchanged_files import UnchangedFiles


def reader(path: Path, calls: list[bytes]) -> Callable[[], bytes]:
    def read() -> bytes:
        calls.append(path.read_bytes())
        return calls[-1]

    return read


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes each file for one that changed long ago."""
    monkeypatch.setattr(unchanged_files, "SETTLED_NS", -(10**18))


def test_an_old_file_is_read_once() -> None:
    path, calls, memo = Path(os.__file__), list[bytes](), UnchangedFiles[bytes]()
    for _ in range(3):
        assert memo.get(str(path), reader(path, calls)) == path.read_bytes()
    assert len(calls) == 1


def test_a_file_that_changed_just_now_is_read_again(tmp_path: Path) -> None:
    path, calls, memo = tmp_path / "new", list[bytes](), UnchangedFiles[bytes]()
    for _ in range(2):
        path.write_bytes(b"x")
        memo.get(str(path), reader(path, calls))
    assert len(calls) == 2


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("how", ["longer", "replaced", "times set back", "other mode"])
def test_a_changed_file_is_read_again(tmp_path: Path, how: str) -> None:
    path, calls, memo = tmp_path / "old", list[bytes](), UnchangedFiles[bytes]()
    path.write_bytes(b"old")
    memo.get(str(path), reader(path, calls))
    memo.get(str(path), reader(path, calls))
    assert len(calls) == 1
    before = path.stat()
    if how == "longer":
        path.write_bytes(b"longer")
    elif how == "replaced":
        (tmp_path / "new").write_bytes(b"new")
        os.replace(tmp_path / "new", path)
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of a file system has steps
        if how == "times set back":
            path.write_bytes(b"new")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif how == "other mode":
            path.chmod(0o666)
        else:
            break
    assert memo.get(str(path), reader(path, calls)) == path.read_bytes()
    assert len(calls) == 2


@pytest.mark.usefixtures("settled")
def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    path, memo = tmp_path / "old", UnchangedFiles[bytes]()
    path.write_bytes(b"old")
    memo.get(str(path), path.read_bytes)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        memo.get(str(path), path.read_bytes)


@pytest.mark.usefixtures("settled")
def test_what_fails_is_tried_again(tmp_path: Path) -> None:
    path, memo = tmp_path / "old", UnchangedFiles[bytes]()
    path.write_bytes(b"old")

    def fail() -> bytes:
        raise ValueError

    with pytest.raises(ValueError):
        memo.get(str(path), fail)
    assert memo.get(str(path), path.read_bytes) == b"old"


@pytest.mark.usefixtures("settled")
def test_only_a_number_of_files_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unchanged_files, "_MOST", 2)
    memo, calls = UnchangedFiles[bytes](), list[bytes]()
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths:
        path.write_bytes(path.name.encode())
        memo.get(str(path), reader(path, calls))
    memo.get(str(paths[2]), reader(paths[2], calls))
    assert calls == [b"a", b"b", b"c"]
    memo.get(str(paths[0]), reader(paths[0], calls))
    assert calls == [b"a", b"b", b"c", b"a"]
