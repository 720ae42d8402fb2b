"""Maps of an object that libbpf pins, or opens by their pins: ``LIBBPF_PIN_BY_NAME``."""

from __future__ import annotations

import errno
import os
from collections.abc import Container, Iterable

from pytest_bpfmaps.errors import LoadError
from pytest_bpfmaps.libbpf import lib
from pytest_bpfmaps.maps.info import MapInfo, map_info
from pytest_bpfmaps.maps.pins import Pins, differences
from pytest_bpfmaps.objects.map_spec import MapSpec

_MISMATCH = "couldn't reuse pinned map"


class PinnedMaps:
    """The maps of an opened object that have a path for a pin.

    libbpf sets the path when the object is opened. For a map that is pinned by name, this class replaces
    ``/sys/fs/bpf`` in it by `root`, or by the folder of `pins`.
    """

    def __init__(self, specs: Iterable[MapSpec], pins: Pins | None, root: str | None) -> None:
        self.pins = pins
        self._specs = {spec.name: spec for spec in specs}
        self._there: set[str] = set()
        for spec in self._specs.values():
            path = spec.pin_path
            if path is not None and (root is not None or pins is not None):
                folder = root if root is not None else str(pins.root if pins else "")
                spec.pin_path = f"{folder}/{os.path.basename(path)}"

    def look(self) -> None:
        """Records which pins exist before the load: the teardown will not remove these."""
        self._there = {p for s in self._specs.values() if (p := s.pin_path) and os.path.lexists(p)}

    def explain(self, log: str, on: str) -> LoadError | None:
        """Returns the error that names each field in which a pinned map differs.

        Returns None if the load failed for another reason.
        """
        if _MISMATCH not in log:
            return None
        for spec in self._specs.values():
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

    def paths_of(self, name: str) -> list[str]:
        """Returns the path of the pin that the load made or opened for a map; an empty list without one."""
        spec = self._specs.get(name)
        path = spec.pin_path if spec else None
        return [path] if path else []

    def was_there(self, name: str) -> bool:
        """Whether the pin of a map existed before the load, so that the load opened it."""
        return any(path in self._there for path in self.paths_of(name))

    def keep(self, maps: Container[str]) -> None:
        """Adds the new pins of loaded maps to the test's pins, so that the teardown removes them."""
        if self.pins is None:
            return
        for path in (path for name in self._specs if name in maps for path in self.paths_of(name)):
            if path not in self._there:
                self.pins.add(path)


def _wanted(spec: MapSpec) -> MapInfo:
    return MapInfo(
        type=spec.type,
        id=0,
        name=spec.name,
        key_size=spec.key_size,
        value_size=spec.value_size,
        max_entries=spec.max_entries,
        flags=spec.flags,
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
