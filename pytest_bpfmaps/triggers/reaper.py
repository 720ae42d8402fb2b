"""Removes what a killed run has left: a shell that waits for this process to end.

It holds the other end of a pipe, which the kernel closes with the process however that ends. A namespace goes
with the descriptors that hold it; its name in /run/netns, processes inside, and control groups would stay.
"""

from __future__ import annotations

import os
from pathlib import Path

_SCRIPT = r"""
trap '' INT TERM HUP QUIT
inodes= paths= groups=
nl='
'
while IFS=' ' read -r what item; do
    case $what in
    inode) inodes=$inodes$nl$item ;;
    path) paths=$paths$nl$item ;;
    group) groups=$groups$nl$item ;;
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
    """The shell, started when it is first told of something, once in each process."""

    def __init__(self) -> None:
        self._pipe = -1
        self._owner = 0  # the process whose pipe it is: after a fork there is another

    def watch_netns(self, inode: int, path: Path) -> None:
        """Has the namespace's processes killed, and its name removed, when this process is gone."""
        self._tell(f"path {path}\ninode {inode}\n")

    def forget_netns(self, inode: int) -> None:
        """It is taken down; its inode number may soon be another's."""
        self._tell(f"gone {inode}\n")

    def watch_cgroup(self, path: Path) -> None:
        """Has what is in the control group killed, and it removed, when this process is gone."""
        self._tell(f"group {path}\n")

    def _tell(self, lines: str) -> None:
        if self._owner != os.getpid():
            self._pipe, self._owner = _start(), os.getpid()
        try:
            os.write(self._pipe, lines.encode())
        except BrokenPipeError:  # it was killed, perhaps as one inside a control group: another takes over
            os.close(self._pipe)
            self._pipe = _start()
            os.write(self._pipe, lines.encode())


reaper = Reaper()
"""This process's."""


def _start() -> int:
    """The writing end of the pipe."""
    reading, writing = os.pipe()  # not inherited, but by what is asked to
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
            setsid=True,  # Ctrl-C is for the run's own group of processes
        )
    finally:
        os.close(reading)
        os.close(quiet)
    return writing
