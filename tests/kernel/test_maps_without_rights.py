"""Tests that maps say which right is missing, when this process is not root for a moment."""

import contextlib
import errno
import os

import pytest

from pytest_bpfmaps import MapError

NOBODY = 65534
BY_ID = "opening a map by its id needs CAP_SYS_ADMIN: run as root, or in a virtual machine"


@contextlib.contextmanager
def as_nobody():
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_creating_a_map(bpf):
    """The kernel allows some types of maps to everybody, if kernel.unprivileged_bpf_disabled is 0."""
    with as_nobody(), pytest.raises(MapError, match=r"map 'lru_hash' \(lru_hash\): EPERM") as refused:
        bpf.create_map("lru_hash", key=4, value=4, max_entries=1)
    assert refused.value.errno == errno.EPERM
    assert "root" in refused.value.fix


def test_opening_maps(bpf):
    m = bpf.create_map("hash", key=4, value=4, max_entries=1)
    for call, argument, what in (
        (bpf.map_by_id, m.id, f"cannot open map id {m.id}: EPERM"),
        (bpf.maps_by_name, "hash", "cannot list the loaded maps: EPERM"),
    ):
        with as_nobody(), pytest.raises(MapError) as refused:
            call(argument)
        assert str(refused.value).startswith(what)
        assert (refused.value.errno, refused.value.fix) == (errno.EPERM, BY_ID)
    assert bpf.map_by_id(m.id) == {}
