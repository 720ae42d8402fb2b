"""Whoever is told of objects as they are loaded and closed: coverage, which counts what runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

Opened_contra = TypeVar("Opened_contra", contravariant=True)
Loaded = TypeVar("Loaded")


class Observer(Protocol[Opened_contra, Loaded]):
    """Is told of each object: an `OpenedObject`, then a `LoadedObject`."""

    def before_load(self, opened: Opened_contra) -> Callable[[Loaded], Loaded] | None:
        """It is configured. What this returns gets the loaded object, and gives the one that is used."""
        ...

    def loaded(self, loaded: Loaded) -> None:
        """This is the object that is used."""
        ...

    def closing(self, loaded: Loaded) -> None:
        """Its links are closed, and it is about to be."""
        ...
