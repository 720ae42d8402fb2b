"""Which captured records came closest to what was expected, field by field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_MOST = 5


def describe_misses(records: Sequence[Any], fields: dict[str, Any]) -> str | None:
    """The closest records first, each with the fields that differ; None when there are no records."""
    from .capture import field_fits

    if not records:
        return None
    ranked = []
    for at, record in enumerate(records):
        wrong = {n: record[n] for n, wanted in fields.items() if not field_fits(record[n], wanted)}
        ranked.append((len(wrong), at, record, wrong))
    ranked.sort(key=lambda entry: entry[:2])
    lines = []
    for _, at, record, wrong in ranked[:_MOST]:
        differs = ", ".join(f"{n} is {v!r}, not {_wanted(fields[n])}" for n, v in wrong.items())
        lines.append(f"  [{at}] {record!r}" + (f"\n      {differs}" if wrong else "\n      matches"))
    if len(ranked) > _MOST:
        lines.append(f"  … and {len(ranked) - _MOST} more")
    return "\n".join(lines)


def _wanted(value: Any) -> str:
    return getattr(value, "__name__", "what the function wants") if callable(value) else repr(value)
