"""The grammar of names and versions that come from a file, a package or a registry.

They become arguments of other programs, file names, and text on a terminal. A name that does not fit its
grammar is refused before that. For example, a package called ``-o=Dir::Bin::dpkg`` would be an option of apt.
"""

from __future__ import annotations

import re

_GRAMMARS = {
    # Debian Policy 5.6.1 and 5.6.12
    "package name": re.compile(r"[a-z0-9][a-z0-9+.-]{0,127}"),
    "package version": re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~:-]{0,127}"),
    # What uname(2) can return: 64 characters.
    "kernel release": re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}"),
    "SHA-256": re.compile(r"[0-9a-f]{64}"),
    "architecture": re.compile(r"[a-z0-9][a-z0-9_]{0,31}"),
    # A name and a version in a registry, or of a file.
    "name": re.compile(r"[A-Za-z0-9][^\s\x00-\x1f\x7f-\x9f]{0,255}"),
    "version": re.compile(r"([A-Za-z0-9][^\s\x00-\x1f\x7f-\x9f]{0,255})?"),
    # A source that may stand in a command that a message shows.
    "stored source": re.compile(r"[A-Za-z0-9/][A-Za-z0-9/._:@+~ -]{0,4095}"),
    "source": re.compile(r"[A-Za-z0-9][^\x00-\x1f\x7f-\x9f]{0,4095}"),
}


def checked(kind: str, value: object) -> str:
    """Returns `value` when it is text that fits the grammar `kind`. Raises ValueError otherwise."""
    # What can't be printed turns the text of a terminal around, or hides it.
    if not isinstance(value, str) or not value.isprintable() or not _GRAMMARS[kind].fullmatch(value):
        raise ValueError(f"{value!r:.100} is no {kind}")
    return value
