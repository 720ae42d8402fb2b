"""Tests the files that a guest sends: the host writes only new files, and only below one folder."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.gateway import artifacts
from pytest_bpfmaps.vm.gateway.requests import Requests


def piece(folder, name, data=b"content", first=True):
    text = base64.b64encode(data).decode()
    return json.dumps({"folder": str(folder), "name": name, "data": text, "first": first})


@pytest.fixture
def base(tmp_path):
    made = tmp_path / "base"
    made.mkdir()
    return made


@pytest.fixture
def store(base):
    requests = Requests(None, lambda: None, None, artifacts.Artifacts(str(base)))
    return lambda *given, **more: requests.answer("artifact", piece(*given, **more))


def test_a_file_in_pieces(base, store):
    path = store(base / "popen-6.1/test_x0", "log", b"one ")
    assert store(base / "popen-6.1/test_x0", "log", b"two", first=False) == path
    assert path == str(base / "popen-6.1/test_x0/log")
    assert Path(path).read_bytes() == b"one two"


@pytest.mark.parametrize(
    "folder",
    ["/etc", "{base}", "{base}/../other", "{base}/link/x", "{base}/a/../..", "relative", "{base}/a\0b"],
)
def test_other_folders(base, store, folder):
    (base / "link").symlink_to("/etc")
    with pytest.raises(VmError, match=r"cannot copy a file of a guest to the host 'log': .*is not below"):
        store(folder.format(base=base), "log")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
def test_other_names(base, store, name):
    with pytest.raises(VmError, match="is no name of a file"):
        store(base / "x", name)


def test_only_new_files(base, store, tmp_path):
    (base / "x").mkdir()
    (base / "x/mine").write_text("keep")
    (base / "x/link").symlink_to(tmp_path / "elsewhere")
    for name in ("mine", "link"):
        with pytest.raises(VmError, match=r"exists"):
            store(base / "x", name)
        with pytest.raises(VmError, match="it was not begun"):
            store(base / "x", name, first=False)
    assert (base / "x/mine").read_text() == "keep"
    assert not (tmp_path / "elsewhere").exists()


def test_too_much(base, store, monkeypatch):
    monkeypatch.setattr(artifacts, "_LARGEST", 10)
    store(base / "x", "log", b"12345")
    with pytest.raises(VmError, match="may have 10 bytes together"):
        store(base / "x", "log", b"123456", first=False)
    assert os.path.getsize(base / "x/log") == 5


def test_a_guest_elsewhere():
    with pytest.raises(VmError, match="this guest runs on another machine"):
        Requests(None, lambda: None).answer("artifact", piece("/tmp/x", "log"))
