"""Shortens what pytest says of a failed assertion: no lines about objects that only lead to the value."""

from __future__ import annotations

import re
from typing import Any

_OURS = r"<(?:program '|programs of |maps of |globals of |loaded |opened |pytest_bpfmaps\.)"
_LEADS_TO = re.compile(
    rf"^E? *\+ +where (?:{_OURS}|RunResult\(|\w+ = {_OURS}|<map '[^']*' \(.*> = {_OURS})"
    r"|^E? *\+ +and +b['\"].{60,}['\"] = "  # the packet of a run: what made it stands in the user's line
)
_ARGUMENT = re.compile(r"<pytest_bpfmaps\.")


def shorten(longrepr: Any) -> None:
    """Shortens a failure's representation in place. Another one than pytest's own stays as it is."""
    for traceback, _, _ in getattr(longrepr, "chain", ()):
        for entry in traceback.reprentries:
            if lines := getattr(entry, "lines", None):
                entry.lines[:] = [line for line in lines if not _LEADS_TO.match(line)]
            arguments = getattr(entry, "reprfuncargs", None)
            if arguments is not None:
                arguments.args = [each for each in arguments.args if not _ARGUMENT.match(str(each[1]))]
                if not arguments.args:
                    entry.reprfuncargs = None
