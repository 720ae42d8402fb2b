"""What the kernel tells of other processes, for tests of what goes on and of what has ended."""

from pathlib import Path


def state(pid: int | str) -> str:
    """Returns the letter that ps(1) shows for a process, or an empty text where there is none.

    A process may end between two looks at it. Its file is then missing, or open and no longer readable
    (ESRCH).
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_running(pid: int | str) -> bool:
    """Tells whether a process exists and is more than an exit status that nobody has asked for yet."""
    return state(pid) not in ("", "Z", "X")
