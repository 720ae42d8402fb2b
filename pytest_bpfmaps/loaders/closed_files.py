"""Explains that an agent could not open a file because of the file's owner and mode."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.privileges import ALL_CAPABILITIES
from pytest_bpfmaps.loaders.spawn import Privileges

# the words of C programs and of Go, then those of Python
_DENIED = re.compile(
    r"([^\s'\":]+)['\"]?: (?:\[Errno 13\] )?[Pp]ermission denied|[Pp]ermission denied: ['\"]([^'\"\n]+)['\"]"
)
_OPENS_ALL = sum(1 << ALL_CAPABILITIES.index(name) for name in ("DAC_OVERRIDE", "DAC_READ_SEARCH"))


def explain_closed_file(
    text: str, rights: Privileges | None, capabilities: int | None, cwd: str
) -> Explanation | None:
    """Explains "Permission denied" for a file that the agent's user may not read; None if it wrote of none.

    A capability for BPF does not open a file. `rights` and `capabilities` are the agent's, and `cwd` is its
    folder.
    """
    if rights is None or capabilities is None or capabilities & _OPENS_ALL:
        return None
    for found in _DENIED.finditer(text):
        path = Path(cwd, found[1] or found[2]).absolute()
        closed = _closed_to(rights, path) or _closed_to(rights, path.resolve())  # a link, then its target
        if closed is not None:
            return _explain(path, closed, rights)
    return None


def _closed_to(rights: Privileges, path: Path) -> Path | None:
    """Returns the first folder on the way that a user may not enter, or the file if it may not read that."""
    user = os.geteuid() if rights.user is None else rights.user
    groups = {os.getegid(), *os.getgroups()} if rights.user is None else {rights.group, *rights.groups}
    for place, bit in (*((each, 0o1) for each in reversed(path.parents)), (path, 0o4)):
        try:
            stat = place.stat()
        except OSError:
            return None
        shift = 6 if stat.st_uid == user else 3 if stat.st_gid in groups else 0
        if not stat.st_mode >> shift & bit:
            return place
    return None


def _explain(path: Path, closed: Path, rights: Privileges) -> Explanation:
    who = "root without CAP_DAC_OVERRIDE" if rights.name is None else f"user {rights.name!r}"
    if closed == path:
        return Explanation(f"{who} may not read {path}", f"chmod o+r {path}, or add DAC_READ_SEARCH to caps=")
    return Explanation(
        f"{who} may not read {path}, because it may not enter the folder {closed}",
        f"chmod o+x {closed}, or put the file into another folder, or add DAC_READ_SEARCH to caps=",
    )
