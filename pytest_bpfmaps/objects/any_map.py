"""What a map of any type is to type checkers and editors.

The object that a test gets is of its map type's own class, such as `HashMap`. A type checker can't know the
type of ``loaded.maps.x``, so it sees a class here that has the operations of all types. In a run, `Map`
is the base class of all maps: an operation that a map's type lacks raises `NameLookupError` or `TypeError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpfmaps.maps import base

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
    from typing import Any, overload

    from pytest_bpfmaps.attach.links import Link
    from pytest_bpfmaps.events.capture import Capture
    from pytest_bpfmaps.events.perf_buffer import PAGES
    from pytest_bpfmaps.events.ringbuf import RecordType
    from pytest_bpfmaps.maps.dict_protocol import Items
    from pytest_bpfmaps.maps.families.stack_trace import Process, StackTrace
    from pytest_bpfmaps.maps.families.struct_ops import StructOpsState
    from pytest_bpfmaps.maps.families.user_ringbuf import Sample
    from pytest_bpfmaps.maps.snapshot import Snapshot

    class Map(base.Map):
        """A map in the kernel, with the operations of every map type."""

        # types with keys

        def __getitem__(self, key: Any) -> Any: ...
        def __setitem__(self, key: Any, value: Any) -> None: ...
        def __delitem__(self, key: Any) -> None: ...
        def __contains__(self, key: Any) -> bool: ...
        def get(self, key: Any, default: Any = None) -> Any:
            """Returns the value of `key`, or `default` if it is missing."""

        @overload
        def pop(self) -> Any: ...
        @overload
        def pop(self, key: Any, default: Any = ...) -> Any: ...
        def pop(self, key: Any = ..., default: Any = ...) -> Any:
            """Removes `key`, and returns its value. A queue or stack has no keys: its next value."""

        def update(self, items: Items) -> None:
            """Writes the elements of a mapping, or of pairs."""

        # types whose keys can be listed

        def __iter__(self) -> Iterator[Any]: ...
        def __len__(self) -> int: ...
        def __bool__(self) -> bool: ...
        def __ge__(self, other: Any) -> bool: ...
        def __le__(self, other: Any) -> bool: ...
        def keys(self) -> KeysView[Any]:
            """Returns the keys as they are now."""

        def values(self) -> ValuesView[Any]:
            """Returns the values as they are now."""

        def items(self) -> ItemsView[Any, Any]:
            """Returns the elements as they are now."""

        def snapshot(self) -> Snapshot:
            """Returns the elements as a new `dict`, which later changes of the map don't affect."""

        def clear(self) -> None:
            """Removes all elements; of an array, sets them to zero."""

        # hash tables and arrays

        def lookup_batch(self) -> list[tuple[Any, Any]]:
            """Returns all elements as pairs of key and value."""

        def update_batch(self, items: Items, flags: int = ...) -> None:
            """Writes many elements in few steps."""

        def delete_batch(self, keys: Iterable[Any]) -> None:
            """Removes many elements in few steps."""

        def to_numpy(self) -> tuple[Any, Any]:
            """Returns the keys and the values as two arrays of numpy."""

        def sum(self) -> Snapshot:
            """Returns the elements of a per-CPU map, with the values of all CPUs added up."""

        # queue, stack, bloom_filter

        def push(self, value: Any, flags: int = ...) -> None:
            """Adds a value to a queue, stack or bloom filter."""

        def peek(self) -> Any:
            """Returns the next value of a queue or stack, and leaves it there."""

        def drain(self) -> list[Any]:
            """Removes all values of a queue or stack, and returns them."""

        def add(self, value: Any) -> None:
            """Adds a value to a bloom filter."""

        # ringbuf, perf_event_array, user_ringbuf

        def capture(
            self,
            type: RecordType = None,
            *,
            tag: str | None = None,
            tap: bool | None = None,
            pages: int = PAGES,
        ) -> Capture:
            """Collects the records that programs send from now on; use it with ``with``.

            `tap` is for ring buffers, `pages` for perf event arrays.
            """

        def send(self, value: Any, type: str | None = None) -> None:
            """Sends a record to programs, by a user ring buffer."""

        def reserve(self, type: str | None = None, *, size: int | None = None) -> Sample:
            """Reserves a record in a user ring buffer, for `submit` or `discard`."""

        # stack_trace

        def user(self, stack_id: int, process: Process) -> StackTrace:
            """Returns a stack of a process, with the names of its functions."""

        # arena

        @property
        def memory(self) -> memoryview:
            """The whole arena, writable."""

        @property
        def address(self) -> int:
            """The address at which the arena begins."""

        def view(self, pointer: int, size: int) -> memoryview:
            """Returns the `size` bytes at a pointer into the arena."""

        def read(self, pointer: int, type: str) -> Any:
            """Returns the C struct `type` at a pointer into the arena."""

        # struct_ops

        def attach(self) -> Link:
            """Registers the map's functions with the kernel."""

        @property
        def state(self) -> StructOpsState:
            """Whether the functions are registered."""

        @property
        def value(self) -> Any:
            """The struct of functions, as the kernel has it."""
else:
    Map = base.Map
