"""Warns about places of a source: once for each file and line. What libbpf refuses may be an error."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_bpfmaps.errors import PortabilityError, PortabilityWarning

_told: set[Finding] = set()


@dataclass(frozen=True, slots=True)
class Finding:
    """A place that libbpf refuses, or that is wrong.

    `what` says what is wrong there, `spelling` what to write: one line each. `line` is 0 if only the file is
    known. `category` is another class than `PortabilityWarning` for what libbpf takes: that is never refused.
    """

    file: str
    line: int
    what: str
    spelling: str
    category: type[UserWarning] = PortabilityWarning


def tell(findings: Iterable[Finding], *, refuse: bool = False) -> None:
    """Gives a warning for each finding for which this process has not given one yet.

    With `refuse` it raises a `PortabilityError` for the first one that libbpf refuses instead, each time.
    """
    for found in findings:
        if refuse and found.category is PortabilityWarning:
            raise PortabilityError(
                "cannot load",
                on=f"{found.file}:{found.line}" if found.line else found.file,
                why=found.what,
                fix=f"{found.spelling}; it is a warning without bpf_portable = true and --bpf-strict",
                errno=errno.EINVAL,
            )
        if found not in _told:
            text = f"{found.what}; {found.spelling}"
            warnings.warn_explicit(text, found.category, found.file, found.line, module="pytest_bpfmaps")
            _told.add(found)  # if warnings are errors, this is not reached, and the next load raises again
