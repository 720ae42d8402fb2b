"""Explains that the kernel has refused the types (BTF) of a whole object, so that no map has types there."""

from __future__ import annotations

import re

from pytest_bpfmaps.errors import Explanation

_REFUSED = re.compile(r"[Ee]rror loading \.BTF into kernel")
_PART = re.compile(r"type_id=(\d+) offset=\d+ size=\d+ Invalid size")
_LAST = re.compile(r"^(\[\d+\] .*)\n(?:\s*\n)*(?:libbpf: )?-- END BTF LOAD LOG --", re.MULTILINE)


def explain_refused_btf(log: str) -> Explanation | None:
    """Explains why an object's maps have no types, by libbpf's log; None if the kernel has taken them."""
    if not _REFUSED.search(log):
        return None
    part = _PART.search(log)
    name = part and re.search(rf"^\[{part[1]}\] VAR (\S+) ", log, re.MULTILINE)
    if name:
        base = name[1].partition(".")[0]
        return Explanation(
            "the kernel has refused the types (BTF) of the whole object, because clang has optimized the "
            f"static variable {base!r}, and its part {name[1]!r} is smaller than its type",
            f"declare {base!r} volatile, or without 'static'",
        )
    last = _LAST.search(log)
    why = f": {last[1].strip()}" if last else ""
    return Explanation(
        f"the kernel has refused the types (BTF) of the whole object{why}",
        "change the declaration that the kernel names, or compile with a newer clang",
    )
