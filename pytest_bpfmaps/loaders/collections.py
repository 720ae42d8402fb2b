"""Maps and programs of another process: by attribute, by name, by id, iterable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from pytest_bpfmaps.errors import AmbiguousNameError, Explanation, NameLookupError, closest

_KEPT = 15  # characters of a name in the kernel
_LISTED = 12  # objects of one name, in a message


class Identified(Protocol):
    """Something in the kernel with a name and an id."""

    @property
    def name(self) -> str: ...
    @property
    def id(self) -> int: ...


T = TypeVar("T", bound=Identified)


def is_called(name: str, other: str) -> bool:
    """Returns whether a name in a test may mean a program or map called `other`, which the kernel may
    have cut.
    """
    if name.startswith("@"):  # bpftrace's spelling
        name = "AT_" + name[1:]
    return other == name or (_KEPT in (len(other), len(name)) and other[:_KEPT] == name[:_KEPT])


class ByName(Generic[T]):
    """Objects that a process has in the kernel: ``found.x``, ``found["x"]``, ``found[17]`` (an id).

    It is iterable, in the order of ids. A name may be written in full, or as the 15 characters that the
    kernel keeps. Raises `NameLookupError` with the closest names for a name that does not exist, and
    `AmbiguousNameError` for a name that several have: an id names one of them. `ended` returns how and when
    the process ended, with what to do; None if it runs.
    """

    def __init__(
        self,
        what: str,
        on: str,
        parts: Iterable[T],
        describe: Callable[[T], str],
        ended: Callable[[], Explanation | None] = lambda: None,
    ) -> None:
        self.__what = what
        self.__on = on
        self.__ended = ended
        self.__parts = {part.id: part for part in sorted(parts, key=lambda part: part.id)}
        self.__describe = describe

    def __getitem__(self, name: str | int) -> T:
        if isinstance(name, int):
            if name in self.__parts:
                return self.__parts[name]
            ids = ", ".join(map(str, self.__parts)) or "none"
            raise self.__missing(f"id {name}", f"it has: {ids}")
        found = self.__named(name)
        if len(found) == 1:
            return found[0]
        if not found:
            names = [part.name for part in self.__parts.values()]
            raise self.__missing(repr(name), closest(name, names))
        listed = [f"  {self.__what}s[{part.id}]: {self.__describe(part)}" for part in found[:_LISTED]]
        if len(found) > _LISTED:
            listed.append(f"  … and {len(found) - _LISTED} more, up to {self.__what}s[{found[-1].id}]")
        raise AmbiguousNameError(
            f"cannot tell which {self.__what} {name!r} is meant",
            on=f"of {self.__on}",
            why=f"{len(found)} have that name",
            details="\n".join(listed),
            fix=f"name it by its id: agent.{self.__what}s[{found[0].id}]",
        )

    def __missing(self, name: str, known: str) -> NameLookupError:
        ended = self.__ended()
        why, fix = (
            (ended.why, f"{known}; {ended.fix}" if self.__parts else ended.fix) if ended else ("", known)
        )
        return NameLookupError(f"no {self.__what} {name}", on=f"of {self.__on}", why=why or None, fix=fix)

    def __named(self, name: str) -> list[T]:
        parts = self.__parts.values()
        exact = [part for part in parts if part.name == name]
        if exact:
            return exact
        # without BTF only the kernel's 15 characters are known, or the test wrote only these
        return [part for part in parts if is_called(name, part.name)]

    def __getattr__(self, name: str) -> T:
        if name.startswith(("__", "_ByName__")):
            raise AttributeError(name)
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self.__parts if isinstance(name, int) else bool(self.__named(str(name)))

    def __iter__(self) -> Iterator[T]:
        return iter(self.__parts.values())

    def __len__(self) -> int:
        return len(self.__parts)

    def __repr__(self) -> str:
        names = ", ".join(f"{part.name} (id {part.id})" for part in self.__parts.values())
        return f"<{self.__what}s of {self.__on}: {names or 'none'}>"
