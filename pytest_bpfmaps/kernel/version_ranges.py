"""Ranges of kernel versions, as the marker `bpf_kernels` takes them: ``>=5.15``, ``>=5.15,<6.6``."""

from __future__ import annotations

import operator
import re

from pytest_bpfmaps.kernel.release import version

_CONDITION = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*v?(\d+(?:\.\d+){0,2})\s*$")
_COMPARE = {
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
    ``>6.6``. Raises `ValueError` for a text that is not a range.
    """
    held = [_holds(condition, version(release)) for condition in text.split(",")]  # each must be well-formed
    return all(held)


def _holds(condition: str, numbers: tuple[int, ...]) -> bool:
    found = _CONDITION.match(condition)
    if found is None:
        raise ValueError(f"{condition.strip()!r} is not a range of versions: write '>=5.15' or '>=5.15,<6.6'")
    wanted = tuple(map(int, found[2].split(".")))
    return bool(_COMPARE[found[1]](numbers[: len(wanted)], wanted))
