"""Count how often a file is opened, with storage that belongs to the file."""

import os

import pytest

pytestmark = pytest.mark.bpf_requires("inode_storage", "lsm/file_open")


def test_a_file_is_counted_under_each_of_its_names(bpf, tmp_path):
    path, other_name = tmp_path / "a", tmp_path / "b"
    path.write_text("x")
    os.link(path, other_name)
    obj = bpf.load("opens_of.bpf.c")
    obj.maps.opens[path] = 0

    with obj.attach():
        path.read_text()
        other_name.read_text()
    with path.open() as file:
        assert obj.maps.opens[file] == obj.maps.opens[other_name] == 2
    assert tmp_path not in obj.maps.opens
