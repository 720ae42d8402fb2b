"""Finds descriptors and pins that were left open, and where in the user's code they were made.

The truth is what this process has open, /proc/self/fd. What this package makes is noted with its place while
it is open; descriptors that were made another way (``os.dup``, libbpf itself) are told without one.
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
    """What was made, and by which lines outside of this package, innermost first.

    `kept`: a fixture closes it. `owner`: closes it when nobody refers to it any more.
    """

    what: str
    places: tuple[Place, ...]
    kept: bool = False
    owner: weakref.ref[object] | None = None


@dataclass(frozen=True, slots=True)
class OpenResources:
    """What is there at a moment: descriptors with what they are, pins, this thread's network namespace."""

    descriptors: dict[int, str]
    pins: frozenset[str]
    netns: str


@dataclass(frozen=True, slots=True)
class Leak:
    """What should be gone: in words, and the lines that made it (none where that is not known)."""

    what: str
    places: tuple[Place, ...]


_INSIDE = Leak("this thread is inside a network namespace that it entered", ())

_made: dict[int, Made] = {}
_pins: dict[str, Made] = {}


def note(what: str, descriptors: Iterable[int], *, owner: object = None) -> None:
    """Remembers who asked for these descriptors, which `forget` has to be told of when they are closed."""
    made = Made(what, _places(), owner=None if owner is None else weakref.ref(owner))
    for fd in descriptors:
        _made[fd] = made


def forget(*descriptors: int) -> None:
    """They are closed."""
    for fd in descriptors:
        _made.pop(fd, None)


def keep(descriptors: Iterable[int]) -> None:
    """A fixture closes them, with its own scope."""
    for fd in descriptors:
        if fd in _made:
            _made[fd].kept = True


def is_kept(fd: int) -> bool:
    """Whether a fixture closes it."""
    return fd in _made and _made[fd].kept


def note_pin(path: str, what: str) -> None:
    """Remembers who asked for a pin that no fixture removes."""
    _pins[path] = Made(what, _places())


def forget_pin(path: str) -> None:
    """It is removed."""
    _pins.pop(path, None)


def snapshot() -> OpenResources:
    """What is there now."""
    _home()
    return OpenResources(dict(_descriptors()), frozenset(_pins), _netns())


def since(before: OpenResources, holders: Mapping[str, object] | None = None) -> list[Leak]:
    """What came after `before` and is still there, but for what a fixture closes later.

    `holders` are about to go: what only they refer to is no leak.
    """
    stays = [] if _netns() in (before.netns, _home()) else [_INSIDE]
    if not _suspects(before) and _pins.keys() <= before.pins:
        return stays
    gc.collect()  # what a cycle of references holds is nobody's
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
    """The namespace that the process began in."""
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
        except OSError:  # the one that the listing itself had open
            continue


def _ids(fd: int) -> set[tuple[str, str]]:
    """What the kernel calls the map or program of a descriptor."""
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
    """The innermost lines outside of this package."""
    found: list[Place] = []
    frame = sys._getframe(2)
    while frame is not None and len(found) < _FRAMES:
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE):
            found.append((file, frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)


def _leads_everywhere(at: object) -> bool:
    """A function refers to its module's globals, pytest's objects to the whole session."""
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
