"""Finds descriptors and pins that were left open, and the lines of the user's code that made them.

/proc/self/fd shows what this process has open. While something that this package made is open, the line that
made it is recorded. Descriptors that were made in another way (``os.dup``, libbpf itself) have no line.
"""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import FrameType, FunctionType, ModuleType

from pytest_bpfmaps.paths import PACKAGE

_PACKAGE = str(PACKAGE) + os.sep
_FDS = "/proc/self/fd"
_KINDS = {
    "anon_inode:bpf-map": "map",
    "anon_inode:bpf-prog": "program",
    "anon_inode:bpf_link": "link",
    "anon_inode:bpf_iter": "iterator",
}
_NETNS = "net:["
_IDS = ("map_id", "prog_id")
_FRAMES = 4
_MOST_SEARCHED = 50_000  # objects

Place = tuple[str, int]
"""File and line."""


@dataclass(slots=True, eq=False)
class Made:
    """Something that was made, and the lines outside of this package that made it, innermost first.

    `kept` says whether a fixture closes it. `owner` is the object that closes it when it is
    garbage-collected.
    """

    what: str
    places: tuple[Place, ...]
    kept: bool = False
    owner: weakref.ref[object] | None = None


@dataclass(frozen=True, slots=True)
class OpenResources:
    """What is open at a moment: descriptors with their kinds, pins, this thread's network namespace."""

    descriptors: dict[int, str]
    pins: frozenset[str]
    netns: str


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that should be closed: its description, and the lines that made it (empty if unknown)."""

    what: str
    places: tuple[Place, ...]


_INSIDE = Leak("this thread is inside a network namespace that it entered", ())

_made: dict[int, Made] = {}
_pins: dict[str, Made] = {}


def note(what: str, descriptors: Iterable[int], *, owner: object = None) -> None:
    """Records which lines made these descriptors. The caller calls `forget` when it closes them."""
    made = Made(what, _places(), owner=None if owner is None else weakref.ref(owner))
    for fd in descriptors:
        _made[fd] = made


def forget(*descriptors: int) -> None:
    """Forgets descriptors that are closed."""
    for fd in descriptors:
        _made.pop(fd, None)


def keep(descriptors: Iterable[int]) -> None:
    """Records that a fixture closes these descriptors at the end of its own scope."""
    for fd in descriptors:
        if fd in _made:
            _made[fd].kept = True


def is_kept(fd: int) -> bool:
    """Returns whether a fixture closes the descriptor."""
    return fd in _made and _made[fd].kept


def note_pin(path: str, what: str) -> None:
    """Records which lines made a pin that no fixture removes."""
    _pins[path] = Made(what, _places())


def forget_pin(path: str) -> None:
    """Forgets a pin that is removed."""
    _pins.pop(path, None)


def snapshot() -> OpenResources:
    """Returns what is open now."""
    _home()
    return OpenResources(dict(_descriptors()), frozenset(_pins), _netns())


def since(before: OpenResources, holders: Mapping[str, object] | None = None) -> list[Leak]:
    """Returns what was opened after `before` and is still open, without what a fixture closes later.

    `holders` are objects that will soon be deleted: what only they refer to is not a leak.
    """
    stays = [] if _netns() in (before.netns, _home()) else [_INSIDE]
    if not _suspects(before) and _pins.keys() <= before.pins:
        return stays
    gc.collect()  # closes what only a cycle of references holds
    found: dict[Made | int, Leak] = {}
    for fd, kind in _suspects(before).items():
        made = _made.get(fd)
        if made is None:
            found[fd] = Leak(_describe(fd, kind), ())
        elif not _goes_with(made, holders):
            found[made] = Leak(made.what, made.places)
    pins = [made for path, made in _pins.items() if path not in before.pins and os.path.lexists(path)]
    return [*found.values(), *(Leak(made.what, made.places) for made in pins), *stays]


def _netns() -> str:
    return os.readlink("/proc/thread-self/ns/net")


@cache
def _home() -> str:
    """Returns the namespace in which the process began."""
    return _netns()


def _suspects(before: OpenResources) -> dict[int, str]:
    fresh = {
        fd: kind
        for fd, kind in _descriptors()
        if before.descriptors.get(fd) != kind and (kind in _KINDS or fd in _made or kind.startswith(_NETNS))
    }
    fresh = {fd: kind for fd, kind in fresh.items() if not is_kept(fd)}
    if not any(fd not in _made for fd in fresh):
        return fresh
    # links and duplicates of what a fixture closes are closed with it
    kept = {i for fd in _made if is_kept(fd) for i in _ids(fd)}
    return {fd: kind for fd, kind in fresh.items() if fd in _made or not kept & _ids(fd)}


def _descriptors() -> Iterator[tuple[int, str]]:
    for name in os.listdir(_FDS):
        try:
            yield int(name), os.readlink(f"{_FDS}/{name}")
        except OSError:  # the descriptor of the listing itself, which is closed now
            continue


def _ids(fd: int) -> set[tuple[str, str]]:
    """Returns the kernel's ids of the map or program of a descriptor."""
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            lines = (line.split() for line in file)
            return {(words[0], words[1]) for words in lines if words and words[0].rstrip(":") in _IDS}
    except OSError:
        return set()


def _describe(fd: int, kind: str) -> str:
    what = _KINDS.get(kind) or ("network namespace" if kind.startswith(_NETNS) else kind)
    ids = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sorted(_ids(fd)))
    named = f" ({ids.replace(':', '')})" if ids else ""
    return f"descriptor {fd} of a {what}{named}, opened"


def _places() -> tuple[Place, ...]:
    """Returns the innermost lines outside of this package."""
    found: list[Place] = []
    frame = sys._getframe(2)
    while frame is not None and len(found) < _FRAMES:
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE):
            found.append((file, frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)


def _leads_everywhere(at: object) -> bool:
    """Returns whether an object refers to too much to search it: functions to globals, pytest's to the
    session.
    """
    if isinstance(at, type | ModuleType | FunctionType | FrameType):
        return True
    return type(at).__module__.partition(".")[0] in ("_pytest", "pytest", "pluggy")


def _goes_with(made: Made, holders: Mapping[str, object] | None) -> bool:
    owner = made.owner() if made.owner is not None else None
    if owner is None or not holders:
        return False
    seen: set[int] = set()
    waiting: list[object] = list(holders.values())
    while waiting and len(seen) < _MOST_SEARCHED:
        at = waiting.pop()
        if at is owner:
            return True
        if id(at) in seen or _leads_everywhere(at):
            continue
        seen.add(id(at))
        waiting += gc.get_referents(at)
    return False
