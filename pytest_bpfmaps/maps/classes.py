"""Makes a map object of the class that has registered for the map's type."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.libbpf import check, lib
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.info import MapInfo

BY_ID = "opening a map by its id needs CAP_SYS_ADMIN: run as root, or in a virtual machine"


def make_map(fd: int, info: MapInfo, codecs: Codecs | None, **options: Any) -> Map:
    """Returns the map object for a descriptor; `options` are those of `Map`."""
    return Map.classes.get(info.type, Map)(fd, info, codecs, **options)


def open_map_id(map_id: int) -> int:
    """Returns a new descriptor of the map with that id. Raises `MapError`."""
    fd = lib.bpf_map_get_fd_by_id(map_id)
    fix = {-errno.ENOENT: "list the ids with 'bpftool map list'", -errno.EPERM: BY_ID}.get(fd)
    return check(fd, MapError, "cannot open", on=f"map id {map_id}", fix=fix)
