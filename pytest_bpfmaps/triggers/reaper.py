"""Removes what a killed run has left, by a shell that waits for this process to end.

The shell has one end of a pipe. The kernel closes our end when this process ends, however it ends. A
namespace is gone when nobody has a descriptor of it. But its name in /run/netns, the processes inside,
control groups, and the children of processes that were started would stay.
"""

from __future__ import annotations

import os
from pathlib import Path

_SCRIPT = r"""
trap '' INT TERM HUP QUIT
inodes= paths= groups= marks=
nl='
'
while IFS=' ' read -r what item; do
    case $what in
    inode) inodes=$inodes$nl$item ;;
    path) paths=$paths$nl$item ;;
    group) groups=$groups$nl$item ;;
    mark) marks=$marks$nl$item ;;
    unmarked)
        rest=
        IFS=$nl
        for each in $marks; do [ "$each" = "$item" ] || rest=$rest$nl$each; done
        marks=$rest
        ;;
    gone)
        rest=
        IFS=$nl
        for each in $inodes; do [ "$each" = "$item" ] || rest=$rest$nl$each; done
        inodes=$rest
        ;;
    esac
done
IFS=$nl
for inode in $inodes; do
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        [ "$pid" != $$ ] && [ "$(readlink "$process/ns/net")" = "net:[$inode]" ] && kill -KILL "$pid"
    done
done
for mark in $marks; do
    for process in /proc/[0-9]*; do
        grep -q "^Max realtime timeout *$mark " "$process/limits" && kill -KILL "${process#/proc/}"
    done
done
for path in $paths; do [ -L "$path" ] && rm -f "$path"; done
for group in $groups; do
    for folder in $(find "$group" -depth -type d); do
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            for pid in $(cat "$folder/cgroup.procs"); do kill -KILL "$pid"; done
            rmdir "$folder" && break
            sleep 0.05
        done
    done
done
"""


class Reaper:
    """The shell. It is started when it is first told something, once in each process."""

    def __init__(self) -> None:
        self._pipe = -1
        self._owner = 0  # the process that started the shell; a forked child starts its own

    def watch_netns(self, inode: int, path: Path) -> None:
        """Has the namespace's processes killed and its name removed when this process is gone."""
        self._tell(f"path {path}\ninode {inode}\n")

    def forget_netns(self, inode: int) -> None:
        """Forgets a namespace that is taken down, because another may soon have its inode number."""
        self._tell(f"gone {inode}\n")

    def watch_cgroup(self, path: Path) -> None:
        """Has the processes of a control group killed, and the group removed, when this process is gone."""
        self._tell(f"group {path}\n")

    def watch_mark(self, mark: int) -> None:
        """Has the processes killed that have this limit when this process is gone.

        `mark` is a number of microseconds, of RLIMIT_RTTIME in getrlimit(2).
        """
        self._tell(f"mark {mark}\n")

    def forget_mark(self, mark: int) -> None:
        """Forgets processes that have ended."""
        self._tell(f"unmarked {mark}\n")

    def _tell(self, lines: str) -> None:
        if self._owner != os.getpid():
            self._pipe, self._owner = _start(), os.getpid()
        try:
            os.write(self._pipe, lines.encode())
        except BrokenPipeError:  # the shell was killed, perhaps inside a control group
            os.close(self._pipe)
            self._pipe = _start()
            os.write(self._pipe, lines.encode())


reaper = Reaper()
"""The reaper of this process."""


def _start() -> int:
    """Starts the shell, and returns our end of the pipe."""
    reading, writing = os.pipe()  # only processes that are told to inherit it
    quiet = os.open(os.devnull, os.O_WRONLY)
    try:
        os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _SCRIPT, "bpfmaps-reaper"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reading, 0),
                (os.POSIX_SPAWN_DUP2, quiet, 1),
                (os.POSIX_SPAWN_DUP2, quiet, 2),
            ],
            setsid=True,  # so that Ctrl-C does not end it, too
        )
    finally:
        os.close(reading)
        os.close(quiet)
    return writing
