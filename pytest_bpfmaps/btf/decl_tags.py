"""Declaration tags: the texts of ``__attribute__((btf_decl_tag("…")))`` of a function.

clang 14 and later write them. https://docs.kernel.org/bpf/btf.html#btf-kind-decl-tag
"""

from __future__ import annotations

from pytest_bpfmaps.btf.types import Btf, Kind

_WHOLE = -1  # the component of a tag that is for the function itself, not for one of its arguments


def function_tags(btf: Btf) -> dict[str, list[str]]:
    """Returns the tags of each function that has some, by its name, in the order of their types."""
    found: dict[str, list[str]] = {}
    for tag in btf.of_kind(Kind.DECL_TAG):
        if tag.component() == _WHOLE and tag.target.kind is Kind.FUNC:
            found.setdefault(tag.target.name, []).append(tag.name)
    return found
