"""Captures records while a test runs, and checks that expected records are among them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, overload

from pytest_bpfmaps.btf import Codec
from pytest_bpfmaps.errors import CaptureTimeoutError, NameLookupError, NoValueError
from pytest_bpfmaps.events.buffer import RecordSource
from pytest_bpfmaps.events.matching import describe_loss, describe_misses, describe_runs
from pytest_bpfmaps.events.record_fields import check_names, fits
from pytest_bpfmaps.events.records import Records, blocks_of
from pytest_bpfmaps.kernel.release import shown_timeout, timeout_scale
from pytest_bpfmaps.kernel.run_counts import RunCounts

# A program may submit with BPF_RB_NO_WAKEUP, so a sleeping reader looks again after this many seconds.
_LOOK_AGAIN = 0.02
# Defaults in seconds. They are objects of their own: `is` tells them from an equal number in a call.
_SECOND, _TENTH = float("1.0"), float("0.1")


class Capture(Sequence[Any]):
    """The records that came since the capture began, decoded, oldest first.

    The sequence grows while the ``with`` block runs, and does not change afterwards. It does not have records
    that were in the buffer before. A record is decoded when it is read. `on` is the buffer's name in
    messages.
    """

    def __init__(self, source: RecordSource, codec: Codec, on: str, map_id: int | None = None) -> None:
        self._map_id = map_id
        self._runs = RunCounts() if map_id is not None else None
        self._source = source
        self._codec = codec
        self.on = on
        self._records = Records(codec, on, source.padding)
        self._open = True
        self._told = False
        for _ in blocks_of(source):  # records from before the capture
            pass

    @property
    def lost(self) -> int:
        """The number of records that the kernel could not deliver.

        The kernel counts them for perf buffers. For a ring buffer that was never full it is 0. Raises
        `NoValueError` if a ring buffer was full, or overwrote records.
        """
        self._drain()
        if self._source.times_full or self._source.overwritten:
            raise NoValueError(
                "cannot count the lost records",
                on=f"from {self.on}",
                why="the buffer was full, and the kernel does not count what it then loses",
                fix="give it a larger max_entries, or let the program count what it can't send",
            )
        return self._source.lost

    @property
    def missed(self) -> int:
        """How many bytes of records, with their headers, were overwritten before a tap could copy them."""
        self._drain()
        return self._source.missed

    # a sequence

    def __len__(self) -> int:
        self._drain_all()
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        self._drain_all()
        try:
            return self._records[index]
        except IndexError:
            raise IndexError(
                f"no record {index} from {self.on}: {len(self._records)} were captured"
            ) from None

    def __iter__(self) -> Iterator[Any]:
        self._drain_all()
        return iter(self._records)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, list | tuple):
            return list(self) == list(other)
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        self._drain()
        return ", ".join(self._records.shown(0, len(self._records))).join("[]")

    def to_numpy(self) -> Any:
        """Returns the records so far in one NumPy structured array, with a dtype made from BTF.

        Raises `UnsupportedError` without NumPy, or for a C type that NumPy can't show.
        """
        self._drain_all()
        return self._records.to_numpy()

    # waiting

    def wait(
        self, count: int = 1, timeout: float = 1.0, match: Callable[[Any], Any] | None = None
    ) -> list[Any]:
        """Returns all records so far, as soon as there are `count`.

        With `match`, it waits for records for which ``match(record)`` is true, and returns those. `timeout`
        is in seconds. The wait is longer where the CPU is emulated. Raises `CaptureTimeoutError` (an
        `AssertionError`) if they don't come in time.
        """
        if match is None:
            self._until(lambda: len(self._records) >= count, timeout)
            found: Sequence[Any] = self._records
        else:
            found = self._until_matching(match, count, timeout)
        if len(found) < count:
            self._told = True
            came = f"{len(self._records)} came"
            raise CaptureTimeoutError(
                f"waited {shown_timeout(timeout)} for {count} record{'s' * (count != 1)}",
                on=f"from {self.on}",
                why=came if match is None else f"{len(found)} of {len(self._records)} captured records fit",
                details=self._listing(),
                fix=describe_loss(self._source) or self._hint(),
            )
        return list(found)

    def expect(
        self,
        fields: Mapping[str, Any] | None = None,
        /,
        *,
        count: int | None = None,
        timeout: float = _SECOND,
        **more: Any,
    ) -> list[Any]:
        """Returns the records with these fields, as soon as there are `count` (default: at least one).

        Fields are keywords, or a mapping. In a mapping, a name may also be ``count`` or ``timeout``, or reach
        into a nested struct: ``expect({"hdr.pid": 1, "count": 2}, count=1)``. If a value is a callable, it is
        called with the field's value, and says whether it fits. If the value of a nested struct is a mapping,
        only the fields in it are compared. With `count`, it is also a failure if more records match, or if
        records were lost, which may have matched. `timeout` is in seconds.

        Raises `CaptureTimeoutError` with the closest records. Raises `NameLookupError` for a field that the
        records don't have, and, without a mapping, for an argument that is also a field.
        """
        given = {} if count is None else {"count": count}
        if timeout is not _SECOND:
            given["timeout"] = timeout  # type: ignore[assignment]
        wanted = self._wanted("expect", fields, more, given)
        least = 1 if count is None else count
        found = self._until_matching(lambda r: fits(r, wanted), max(least, 1), timeout)
        if len(found) < least or (count is not None and len(found) != count):
            amounts = f"{len(found)} of {len(self._records)}"
            raise CaptureTimeoutError(
                f"expected {_amount(count)} with {_show(wanted)}",
                on=f"from {self.on}",
                why=f"{amounts} captured records matched in {shown_timeout(timeout)}",
                details=describe_misses(self._records, wanted),
                fix=describe_loss(self._source) or (None if found else self._hint()),
            )
        if count is not None and self._has_losses():
            self._refuse_if_lost(f"that no more than {_amount(count)} with {_show(wanted)} came")
        return found

    def expect_none(
        self, fields: Mapping[str, Any] | None = None, /, *, within: float = _TENTH, **more: Any
    ) -> None:
        """Waits for `within` seconds, and checks that no record with those fields comes.

        Fields are given as for `expect`. Raises `CaptureTimeoutError` (an `AssertionError`) as soon as such a
        record comes, and if records were lost or another reader may have taken some. Raises `NameLookupError`
        as `expect` does.
        """
        given = {} if within is _TENTH else {"within": within}
        wanted = self._wanted("expect_none", fields, more, given)
        found = self._until_matching(lambda r: fits(r, wanted), 1, within)
        if found:
            raise CaptureTimeoutError(
                f"expected no record with {_show(wanted)}",
                on=f"from {self.on}",
                why=f"{len(found)} came",
                details="\n".join(f"  {r!r}" for r in found[:5]),
            )
        self._refuse_if_lost(f"that no record with {_show(wanted)} came")

    def close(self) -> None:
        """Reads what is still in the buffer, and ends the capture. Safe to call again."""
        if not self._open:
            return
        try:
            self._drain()
            self._warn_of_others()
        finally:
            self._open = False
            self._source.close()
            if self._runs:
                self._runs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        try:
            self.close()
        except Exception as e:
            if error is None:
                raise
            error.add_note(f"and the capture could not be ended: {e}")

    # inside

    def _drain(self) -> None:
        if not self._open:
            return
        for block in blocks_of(self._source):
            self._records.add(block)

    def _drain_all(self) -> None:
        """Drains the buffer for a caller that needs all records."""
        self._drain()
        self._refuse_if_taken()

    def _refuse_if_taken(self) -> None:
        if self._source.taken or self._source.missed:
            self._told = True
            raise CaptureTimeoutError(
                "cannot know all records",
                on=f"from {self.on}",
                why=f"{len(self._records)} came here",
                fix=describe_loss(self._source),
            )

    def _has_losses(self) -> bool:
        source = self._source
        return bool(source.taken or source.missed or source.overwritten or source.lost or source.times_full)

    def _refuse_if_lost(self, what: str) -> None:
        """Raises `CaptureTimeoutError` if records are missing, so that nobody can know `what`."""
        if loss := describe_loss(self._source):
            self._told = True
            raise CaptureTimeoutError(
                f"cannot know {what}", on=f"from {self.on}", why="not all records came here", fix=loss
            )

    def _warn_of_others(self) -> None:
        """Warns that another reader may have taken records, if no expectation has said so yet."""
        if self._told or (self._records and not self._source.taken and not self._source.missed):
            return
        others = describe_loss(self._source) if self._source.missed else self._source.others()
        if others is not None:
            warnings.warn(f"not all records from {self.on} came to the test: {others}", stacklevel=3)

    def _until(self, condition: Any, timeout: float) -> None:
        """Drains until `condition` holds or the time is over."""
        end = time.monotonic() + timeout * timeout_scale()
        self._drain()
        while not condition():
            left = end - time.monotonic()
            if left <= 0 or not self._open:
                return
            self._source.wait(min(left, _LOOK_AGAIN))
            self._drain()

    def _until_matching(self, match: Callable[[Any], Any], count: int, timeout: float) -> list[Any]:
        found: list[Any] = []
        seen = 0

        def enough() -> bool:
            nonlocal seen
            fresh, seen = self._records[seen:], len(self._records)
            found.extend(r for r in fresh if match(r))
            return len(found) >= count

        self._until(enough, timeout)
        return found

    def _wanted(
        self, verb: str, fields: Mapping[str, Any] | None, more: dict[str, Any], given: dict[str, Any]
    ) -> dict[str, Any]:
        """Returns the fields of a call; `given` has the arguments that are not fields."""
        twice = next((n for n in more if fields is not None and n in fields), None)
        known = getattr(self._codec, "by_name", {})
        clash = twice or next((n for n in given if fields is None and n in known), None)
        if clash:
            as_field = {**more, **(given if fields is None else fields)}
            raise NameLookupError(
                f"cannot decide what {clash!r} is in {verb}(…)",
                on=f"of the records from {self.on}",
                why="it is given twice" if twice else f"it is an argument, and a field of {self._codec.name}",
                fix=f"give the fields as a mapping, before arguments: {verb}({as_field!r}, …)"
                + ("" if twice else f"; the argument then is {verb}({more!r}, {clash}={given[clash]!r})"),
            )
        wanted = {**(fields or {}), **more}
        check_names(self._codec, wanted, self.on)
        return wanted

    def _listing(self) -> str | None:
        if not self._records:
            return None
        shown = [f"  {text}" for text in self._records.shown(0, 5)]
        more = len(self._records) - len(shown)
        return "\n".join(shown + ([f"  … and {more} more"] if more else []))

    def _hint(self) -> str:
        if not self._open:
            return "the capture has ended: expect records inside its 'with' block"
        runs = self._runs.of_map(self._map_id) if self._runs and self._map_id is not None else None
        return describe_runs(runs) or "was the program attached, and did the trigger come after that?"


def _amount(count: int | None) -> str:
    return "a record" if count is None else f"{count} record{'s' * (count != 1)}"


def _show(fields: dict[str, Any]) -> str:
    if all(n.isidentifier() for n in fields):
        return ", ".join(f"{n}={v!r}" for n, v in fields.items()) or "any fields"
    return repr(fields)
