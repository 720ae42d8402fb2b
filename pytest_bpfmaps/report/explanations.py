"""Shortens what pytest says of a failed assertion: no lines about objects that only lead to the value."""

from __future__ import annotations

import re
from typing import Any

_OURS = r"<(?:program '|programs of |maps of |globals of |loaded |opened )"
_LEADS_TO = re.compile(rf"^E? *\+ +where (?:{_OURS}|RunResult\(|\w+ = {_OURS})")
_ENUMERATOR = re.compile(r"<(?:XdpAction|TcAction|BpfReturn|SkAction|NetfilterVerdict)\.(\w+): -?\d+>")
_ARGUMENT = re.compile(r"<pytest_bpfmaps\.")


def shorten(longrepr: Any) -> None:
    """Shortens a failure's representation in place. Another one than pytest's own stays as it is."""
    for traceback, _, _ in getattr(longrepr, "chain", ()):
        for entry in traceback.reprentries:
            if lines := getattr(entry, "lines", None):
                entry.lines[:] = [
                    _ENUMERATOR.sub(r"\1", line) if line.startswith("E") else line
                    for line in lines
                    if not _LEADS_TO.match(line)
                ]
            arguments = getattr(entry, "reprfuncargs", None)
            if arguments is not None:
                arguments.args = [each for each in arguments.args if not _ARGUMENT.match(str(each[1]))]
                if not arguments.args:
                    entry.reprfuncargs = None
