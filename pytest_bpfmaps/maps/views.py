"""The keys and elements of a snapshot, found by whatever the map takes for a key."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Set
from types import MappingProxyType
from typing import Any

from pytest_bpfmaps.btf import Codec
from pytest_bpfmaps.btf.comparison import same

HasOnly = Callable[[Iterable[Any]], bool]
"""Whether keys in any shape mean as many elements as there are, each another one."""


class Keys(KeysView[Any]):
    """What `dict.keys` gives; the name of an enum's value is in it, too."""

    def __init__(self, mapping: dict[Any, Any], has_only: HasOnly) -> None:
        super().__init__(mapping)
        self.__mapping = mapping
        self.__has_only = has_only

    def __eq__(self, other: object) -> bool:
        """What is in the view decides: other sets find no names."""
        if not isinstance(other, Set):
            return NotImplemented
        return self.__has_only(other) and all(key in self for key in other)

    def __contains__(self, key: object) -> bool:
        return key in self.__mapping

    def __iter__(self) -> Iterator[Any]:
        return dict.__iter__(self.__mapping)

    @property
    def mapping(self) -> MappingProxyType[Any, Any]:
        """What it is a view of, as views of a `dict` have it."""
        return MappingProxyType(self.__mapping)

    def __reversed__(self) -> Iterator[Any]:
        return dict.__reversed__(self.__mapping)


class Items(ItemsView[Any, Any]):
    """What `dict.items` gives; `value` is the type that values are compared by."""

    def __init__(self, mapping: dict[Any, Any], value: Codec | None) -> None:
        super().__init__(mapping)
        self.__mapping = mapping
        self.__value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Set):
            return NotImplemented
        theirs = dict(item for item in other if isinstance(item, tuple) and len(item) == 2)
        return len(theirs) == len(other) and bool(self.__mapping == theirs)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        try:
            found = self.__mapping[item[0]]
        except KeyError:
            return False
        return found is item[1] or same(self.__value, found, item[1])

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter(dict.items(self.__mapping))

    @property
    def mapping(self) -> MappingProxyType[Any, Any]:
        """What it is a view of, as views of a `dict` have it."""
        return MappingProxyType(self.__mapping)

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return reversed(dict.items(self.__mapping))
