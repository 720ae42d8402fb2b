"""Maps of an object that libbpf pins, and takes from their pins: ``LIBBPF_PIN_BY_NAME``."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Any

from pytest_bpfmaps.errors import LoadError
from pytest_bpfmaps.libbpf import lib
from pytest_bpfmaps.maps.info import MapInfo, map_info
from pytest_bpfmaps.maps.pins import Pins, differences
from pytest_bpfmaps.objects.collection import Named
from pytest_bpfmaps.objects.map_spec import MapSpec

_MISMATCH = "couldn't reuse pinned map"


class PinnedMaps:
    """Those of an opened object's maps that have a path for a pin.

    libbpf names it when the object is opened; a map that is pinned by name moves from ``/sys/fs/bpf`` to
    `root`, or to the folder of `pins`.
    """

    def __init__(self, specs: Iterable[MapSpec], pins: Pins | None, root: str | None) -> None:
        self._specs = list(specs)
        self._pins = pins
        self._there: set[str] = set()
        for spec in self._specs:
            path = spec.pin_path
            if path is not None and (root is not None or pins is not None):
                folder = root if root is not None else str(pins.root if pins else "")
                spec.pin_path = f"{folder}/{os.path.basename(path)}"

    def look(self) -> None:
        """Notes which pins are there before the load: those will stay after it."""
        self._there = {p for s in self._specs if (p := s.pin_path) and os.path.lexists(p)}

    def explain(self, log: str, on: str) -> LoadError | None:
        """Why libbpf did not take a pinned map, field by field; None when that is not why the load failed."""
        if _MISMATCH not in log:
            return None
        for spec in self._specs:
            path = spec.pin_path
            if path in self._there and (found := _info_at(path)) is not None:
                why = differences(_wanted(spec), found)
                if why:
                    return LoadError(
                        "cannot load",
                        on=f"{on}: the map pinned at {path} does not fit {spec}",
                        why=why,
                        fix="remove the pin, or load with a pin_root of its own",
                        errno=errno.EINVAL,
                    )
        return None

    def keep(self, maps: Named[Any]) -> None:
        """Hands the new pins to the test's, so that they go with it."""
        for loaded in maps:
            loaded._pins = self._pins
        for spec in self._specs:
            path = spec.pin_path
            if path is None or spec.name not in maps:
                continue
            maps[spec.name]._pinned.append(path)
            if self._pins is not None and path not in self._there:
                self._pins.add(path)


def _wanted(spec: MapSpec) -> MapInfo:
    handle = spec._handle
    return MapInfo(
        type=spec.type,
        id=0,
        name=spec.name,
        key_size=lib.bpf_map__key_size(handle),
        value_size=lib.bpf_map__value_size(handle),
        max_entries=lib.bpf_map__max_entries(handle),
        flags=lib.bpf_map__map_flags(handle),
        btf_id=0,
        btf_key_type_id=0,
        btf_value_type_id=0,
    )


def _info_at(path: str) -> MapInfo | None:
    fd = lib.bpf_obj_get(os.fsencode(path))
    if fd < 0:
        return None
    try:
        return map_info(fd)
    finally:
        os.close(fd)
