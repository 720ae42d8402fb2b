"""The errors of single elements: a missing key, a full map, and what else the kernel refuses."""

from __future__ import annotations

import errno
from collections.abc import Callable

from pytest_bpfmaps.errors import Explanation, MapKeyError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.map_flags import BPF_NOEXIST
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.maps.info import MapInfo


def missing_key(key: object, on: str, why: str | None = None, fix: str | None = None) -> MapKeyError:
    """Returns the error for a key that a map lacks. `on` names the map, ``in map 'counts' (hash)``."""
    return MapKeyError(f"no key {key!r}", on=on, why=why, fix=fix, errno=errno.ENOENT)


def explain_refused_element(number: int, name: str, info: MapInfo, flags: int) -> Explanation:
    """Explains the kernel's error number for an element of the map `name`.

    `flags` are the flags of the call, such as ``BPF_NOEXIST``.
    """
    explain = _EXPLAIN.get(number)
    return explain(name, info, flags) if explain else Explanation(reason(number), None)


def how_to_enlarge(name: str) -> str:
    """Returns what to do when a map is full."""
    return (
        f"make it larger: bpf.load(…, max_entries={{{name!r}: …}}), or bpf.create_map(…, max_entries=…); "
        "or delete elements first"
    )


def _full(name: str, info: MapInfo, flags: int) -> Explanation:
    if "array" in str(info.type):
        why = f"its indices go from 0 to {info.max_entries - 1} (E2BIG)"
        return Explanation(why, "give an index in that range")
    return Explanation(f"the map is full: max_entries is {info.max_entries} (E2BIG)", how_to_enlarge(name))


def _exists(name: str, info: MapInfo, flags: int) -> Explanation:
    if flags & BPF_NOEXIST:
        return Explanation("the key exists already (EEXIST)", "use BPF_ANY to replace its value")
    return Explanation(reason(errno.EEXIST), None)


def _not_permitted(name: str, info: MapInfo, flags: int) -> Explanation:
    return Explanation(
        reason(errno.EPERM),
        "run with CAP_BPF; the map may also be frozen, or read-only for user space (BPF_F_RDONLY)",
    )


def _invalid(name: str, info: MapInfo, flags: int) -> Explanation:
    why = reason(errno.EINVAL)
    if info.type == MapType.ARRAY:
        return Explanation(why, "elements of an array can't be created or deleted, only overwritten")
    return Explanation(why, None)


_EXPLAIN: dict[int, Callable[[str, MapInfo, int], Explanation]] = {
    errno.E2BIG: _full,
    errno.EEXIST: _exists,
    errno.EPERM: _not_permitted,
    errno.EINVAL: _invalid,
}
