"""Reads which warnings a configuration or a test allows: regular expressions, each with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest


def allowed_by(config: pytest.Config, key: str) -> list[re.Pattern[str]]:
    """Returns what a key of the configuration file allows; each line is ``REGEX  # REASON``.

    Raises pytest.UsageError for a wrong line.
    """
    found = []
    for line in config.getini(key):
        regex, sign, reason = line.rpartition(" #")
        if not (sign and regex.strip() and reason.strip()):
            raise pytest.UsageError(f"{key}: {line!r} has no reason\n  -> write: REGEX  # REASON")
        found.append(_compiled(regex.strip(), key))
    return found


def of_markers(item: pytest.Item, marker: str) -> Iterator[re.Pattern[str]]:
    """Yields what the markers of a test allow. Fails the test for a marker without regexes and a reason."""
    for mark in item.iter_markers(marker):
        reason = mark.kwargs.get("reason")
        if not mark.args or not reason or len(mark.kwargs) > 1:
            usage = f"write: @pytest.mark.{marker}(REGEX, reason=...)"
            pytest.fail(f"{marker}: regexes and a reason are needed\n  -> {usage}", pytrace=False)
        for regex in mark.args:
            try:
                yield _compiled(regex, marker)
            except pytest.UsageError as error:
                pytest.fail(str(error), pytrace=False)


def _compiled(regex: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(regex, re.MULTILINE)
    except re.error as error:
        raise pytest.UsageError(f"{where}: {regex!r} is no regular expression: {error}") from None
