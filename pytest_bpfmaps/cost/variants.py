"""Variants: values of ``const volatile`` globals that production uses. They change what is verified."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

Variants = dict[str, dict[str, Any]]
_NAME = re.compile(r"[\w.+-]+$")
_VALUE = re.compile(r"\s*([\w.]+)\s*=\s*(\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}|[^,]+?)\s*(?:,|$)")


def read_variants(lines: Iterable[str]) -> Variants:
    """Reads lines such as ``large: rounds=100, mode=FAST``. Raises ValueError with the line."""
    found: Variants = {}
    for line in filter(None, map(str.strip, lines)):
        name, colon, text = line.partition(":")
        if not colon or not _NAME.match(name.strip()) or name.strip() == "-":
            raise ValueError(line)
        found[name.strip()] = _values(line, text)
    return found


def _values(line: str, text: str) -> dict[str, Any]:
    at, values = 0, {}
    while at < len(text):
        match = _VALUE.match(text, at)
        if match is None:
            raise ValueError(line)
        values[match[1]] = value_of(match[2])
        at = match.end()
    if not values:
        raise ValueError(line)
    return values


def value_of(text: str) -> Any:
    """Returns the value that a text means: a number, JSON, or the text itself, such as an enum's name."""
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return json.loads(text)
    except ValueError:
        return text


def checked(variants: Mapping[str, Any]) -> Variants:
    """Returns the variants that a marker gives. Raises ValueError for one that is no mapping of globals."""
    for name, values in variants.items():
        if not isinstance(values, Mapping) or not values:
            raise ValueError(f"{name}={values!r}")
    return {name: dict(values) for name, values in variants.items()}
