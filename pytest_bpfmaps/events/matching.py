"""Describes which captured records came closest to what was expected, field by field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_bpfmaps.btf.comparison import byte_swap
from pytest_bpfmaps.events.buffer import RecordSource
from pytest_bpfmaps.events.record_fields import field_fits, value_of
from pytest_bpfmaps.kernel.run_counts import Runs

_MOST = 5


def describe_misses(records: Sequence[Any], fields: dict[str, Any]) -> str | None:
    """Returns the closest records, each with the fields that differ; None if there are no records."""
    if not records:
        return None
    ranked = []
    for at, record in enumerate(records):
        wrong = {n: value_of(record, n) for n, wanted in fields.items() if not field_fits(record, n, wanted)}
        ranked.append((len(wrong), at, record, wrong))
    ranked.sort(key=lambda entry: entry[:2])
    lines = []
    for _, at, record, wrong in ranked[:_MOST]:
        differs = ", ".join(_differs(n, v, fields[n]) for n, v in wrong.items())
        lines.append(f"  [{at}] {record!r}" + (f"\n      {differs}" if wrong else "\n      matches"))
    if len(ranked) > _MOST:
        lines.append(f"  … and {len(ranked) - _MOST} more")
    return "\n".join(lines)


def _differs(name: str, value: Any, wanted: Any) -> str:
    hint = byte_swap(value, wanted)
    return f"{name} is {value!r}, not {_wanted(wanted)}" + (f" ({hint})" if hint else "")


def describe_loss(source: RecordSource) -> str | None:
    """Returns a sentence if records may be missing: another reader took them, or the buffer was full."""
    others = source.others()
    if others is not None:
        return f"{others}: end it, or let the test have a buffer of its own"
    if source.missed:
        lost = f"{source.missed} bytes of records"
        return (
            f"the process that reads the buffer was faster: {lost} were overwritten before they could be "
            "copied; give the buffer a larger max_entries, or look at fewer events"
        )
    if source.overwritten:
        lost = f"{source.overwritten} bytes of older ones"
        return f"newer records have overwritten {lost} (BPF_F_RB_OVERWRITE); give it a larger max_entries"
    if source.lost:
        records = "1 record" if source.lost == 1 else f"{source.lost} records"
        return f"the kernel lost {records}: the buffer was full; make it larger: capture(pages=…)"
    if source.times_full:
        return "the ring buffer was full, so the program may have lost records; give it a larger max_entries"
    return None


def describe_runs(runs: list[Runs] | None) -> str | None:
    """Returns a sentence about whether the programs that write to the buffer ran; None if unknown."""
    if not runs:
        return None
    said = []
    for each in runs:
        times = f"ran {each.count} time{'s' * (each.count != 1)} since the capture began"
        if each.count:
            said.append(f"program {each.name!r} {times}, but sent nothing that fits")
        elif each.attached:
            said.append(f"program {each.name!r} is attached, but {times}: did the trigger reach it?")
        else:
            said.append(f"program {each.name!r} is not attached, and {times}")
    return "; ".join(said)


def _wanted(value: Any) -> str:
    return getattr(value, "__name__", "what the function accepts") if callable(value) else repr(value)
