"""Checks formats of ``bpf_printk``: for a format that the kernel refuses, it prints nothing at all.

The rules are those of ``bpf_bprintf_prepare`` in kernel/bpf/helpers.c (Linux 5.13, commit d9c9e4db186a, which
also brought ``bpf_snprintf``), and those of ``bpf_trace_printk`` in older kernels.
"""

from __future__ import annotations

import re

from pytest_bpfmaps.kernel.features import probe

_END = r"(?![0-9A-Za-z])"
_CONVERSION = re.compile(
    rf"%(?:%|[-+0 ]*(?:[1-9]\d*)?(?:p[ku]s{_END}|p[KxsSB]|p[iI][46]|p{_END}|s{_END}|c|l{{0,2}}[diuxX]))"
)
_OLD = re.compile(rf"%(?:p[ku]s{_END}|pB|p{_END}|s{_END}|l{{0,2}}[diux])")
_SHOWN = re.compile(r"%[-+#0 ]*[\d.*]*[hlLqjzt]*[A-Za-z%]?")


def refused_conversion(format: str) -> str | None:
    """Returns the first conversion that this kernel refuses, such as ``%lf``; None if it takes the format."""
    found = _first(format, _CONVERSION)
    if found is None and _first(format, _OLD) is not None and not probe("helper", "bpf_snprintf"):
        return _first(format, _OLD)
    return found


def _first(format: str, known: re.Pattern[str]) -> str | None:
    at = format.find("%")
    while at >= 0:
        if not (found := known.match(format, at)):
            return next(_SHOWN.finditer(format, at))[0]  # a '%' alone fits
        at = format.find("%", found.end())
    return None
