"""Ranges of kernel versions, as the marker `bpf_kernels` takes them: ``>=5.15``, ``>=5.15,<6.6``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

from pytest_bpfmaps.kernel.release import version

_CONDITION = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*v?(\d+(?:\.\d+){0,2})\s*$")
_LARGE = 10**6  # larger than any number in a version
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


def is_range(text: str) -> bool:
    """Returns whether the text is a range, and not a kernel's name."""
    return text.lstrip()[:1] in tuple("<>=!~^")


def in_range(text: str, release: str) -> bool:
    """Returns whether a release, ``6.6.3-amd64``, is in a range; all of several conditions must hold.

    Only as many numbers are compared as the condition has: 6.6.3 is in ``<=6.6`` and ``==6.6``, but not in
    ``>6.6``. Raises `ValueError` for a text that is not a range, and for a range that no version is in.
    """
    conditions = [_condition(each) for each in text.split(",")]
    if not any(_all_hold(conditions, numbers) for numbers in _near(conditions)):
        raise ValueError(f"no version is in the range {text!r}")
    return _all_hold(conditions, version(release))


_Condition = tuple[Callable[[Any, Any], bool], tuple[int, ...]]


def _condition(text: str) -> _Condition:
    found = _CONDITION.match(text)
    if found is None:
        raise ValueError(f"{text.strip()!r} is not a range of versions: write '>=5.15' or '>=5.15,<6.6'")
    return _COMPARE[found[1]], tuple(map(int, found[2].split(".")))


def _all_hold(conditions: list[_Condition], numbers: tuple[int, ...]) -> bool:
    return all(compare(numbers[: len(wanted)], wanted) for compare, wanted in conditions)


def _near(conditions: list[_Condition]) -> Iterator[tuple[int, ...]]:
    """Yields the versions that the conditions name, and those before and after: a range has one of them."""
    for _, wanted in conditions:
        for last in (wanted[-1], wanted[-1] + 1, max(wanted[-1] - 1, 0)):
            yield *wanted[:-1], last, 0, 0
            yield *wanted[:-1], last, _LARGE, _LARGE
    yield 0, 0, 0
