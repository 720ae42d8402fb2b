"""Collections of an object's parts: by attribute, by item, iterable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from pytest_bpfmaps.errors import NameLookupError, closest

T = TypeVar("T")


class Named(Generic[T]):
    """Parts by name: ``parts.x``, ``parts["x"]``, ``"x" in parts``, ``for part in parts``.

    A wrong name raises `NameLookupError` (a `KeyError` and an `AttributeError`) with the closest names.
    `hidden` parts are found by item, but not listed. If a part has the name of a method, such as ``names``,
    the attribute is the part. Only Python's own names between double underscores need ``parts["x"]``.
    """

    def __init__(self, what: str, on: str, parts: dict[str, T], hidden: dict[str, T] | None = None) -> None:
        self.__what = what
        self.__on = on
        self.__parts = parts
        self.__hidden = hidden or {}
        # Python looks at attributes of the instance before methods of the class, so any C name works
        self.__dict__.update({n: p for n, p in parts.items() if not n.startswith("_Named__")})

    def __getitem__(self, name: str) -> T:
        found = self.__parts.get(name, self.__hidden.get(name))
        if found is None:
            known = {**self.__parts, **(self.__hidden if name.startswith(".") else {})}
            raise NameLookupError(
                f"no {self.__what} {name!r}", on=f"in {self.__on}", fix=closest(name, known)
            )
        return found

    def __getattr__(self, name: str) -> T:
        if name.startswith(("__", "_Named__")):
            raise AttributeError(name)
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self.__parts or name in self.__hidden

    def __iter__(self) -> Iterator[T]:
        return iter(self.__parts.values())

    def __len__(self) -> int:
        return len(self.__parts)

    def __dir__(self) -> list[str]:
        return [n for n in super().__dir__() if not n.startswith("_Named__")]

    def names(self) -> list[str]:
        """Returns the names, in the object's order."""
        return names_of(self)

    def __repr__(self) -> str:
        return f"<{self.__what}s of {self.__on}: {', '.join(self.__parts) or 'none'}>"


def names_of(parts: Named[T]) -> list[str]:
    """Returns the names of the parts, in the object's order, even if a part is called ``names``."""
    return list(vars(parts)["_Named__parts"])


def all_of(parts: Named[T]) -> list[T]:
    """Returns the parts, and the hidden ones."""
    return [*vars(parts)["_Named__parts"].values(), *vars(parts)["_Named__hidden"].values()]


def items_of(parts: Named[T]) -> dict[str, T]:
    """Returns the parts by name, with the hidden ones."""
    return {**vars(parts)["_Named__parts"], **vars(parts)["_Named__hidden"]}
