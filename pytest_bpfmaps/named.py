"""Collections of an object's parts: by attribute, by item, iterable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from .errors import NameLookupError, closest

T = TypeVar("T")


class Named(Generic[T]):
    """Parts by name: ``parts.x``, ``parts["x"]``, ``"x" in parts``, ``for part in parts``.

    A wrong name raises `NameLookupError` (a `KeyError` and an `AttributeError`) with the closest names.
    `hidden` parts are found by item, but not listed.
    """

    def __init__(self, what: str, on: str, parts: dict[str, T], hidden: dict[str, T] | None = None) -> None:
        self._what = what
        self._on = on
        self._parts = parts
        self._hidden = hidden or {}

    def __getitem__(self, name: str) -> T:
        found = self._parts.get(name, self._hidden.get(name))
        if found is None:
            raise NameLookupError(
                f"no {self._what} {name!r}",
                on=f"in {self._on}",
                fix=closest(name, {**self._parts, **(self._hidden if name.startswith(".") else {})}),
            )
        return found

    def __getattr__(self, name: str) -> T:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts or name in self._hidden

    def __iter__(self) -> Iterator[T]:
        return iter(self._parts.values())

    def __len__(self) -> int:
        return len(self._parts)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parts]

    def names(self) -> list[str]:
        """The names, in the object's order."""
        return list(self._parts)

    def __repr__(self) -> str:
        return f"<{self._what}s of {self._on}: {', '.join(self._parts) or 'none'}>"
