"""The protocol of observers that are told when objects are loaded and closed: coverage is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from pytest_bpfmaps.kernel.program_info import ForeignProgram

Opened_contra = TypeVar("Opened_contra", contravariant=True)
Loaded = TypeVar("Loaded")


class Observer(Protocol[Opened_contra, Loaded]):
    """Is told of each object, an `OpenedObject`, then a `LoadedObject`, and of each agent."""

    def before_load(self, opened: Opened_contra) -> Callable[[Loaded], Loaded] | None:
        """Is called when the object is configured.

        May return a function, which gets the loaded object and returns the object that the test uses.
        """
        ...

    def loaded(self, loaded: Loaded) -> None:
        """Is called with the object that the test uses."""
        ...

    def closing(self, loaded: Loaded) -> None:
        """Is called when the object's links are closed, before the object itself is closed."""
        ...

    def other_process(self, name: str, programs: Callable[[], Sequence[ForeignProgram]]) -> None:
        """Is called when an agent is ready, and before it is closed. Here it does nothing.

        `name` is that of the process. `programs` returns the programs that it has loaded so far.
        """
        return
