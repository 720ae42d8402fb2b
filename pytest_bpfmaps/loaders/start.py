"""Starts a command as a `LoaderProcess`, or attaches to a process that runs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from pytest_bpfmaps.errors import LoaderError, UnsupportedError, strerror
from pytest_bpfmaps.kernel.netns import current_netns
from pytest_bpfmaps.kernel.program_loads import ProgramLoads
from pytest_bpfmaps.loaders.arguments import check_places, environment_of, words_of
from pytest_bpfmaps.loaders.exec_errors import explain_exec, explain_missing, find_command
from pytest_bpfmaps.loaders.kernel_objects import before_now, before_time
from pytest_bpfmaps.loaders.process import LoaderProcess
from pytest_bpfmaps.loaders.process_tree import ProcessTree, new_mark, process_stat, set_mark
from pytest_bpfmaps.loaders.seccomp import refused_by
from pytest_bpfmaps.loaders.spawn import Privileges, spawn
from pytest_bpfmaps.loaders.token_namespaces import TOKEN_FOLDER


def start_process(
    command: Sequence[str | PathLike[str]],
    folders: Sequence[Path],
    *,
    env: Mapping[str, str] | None,
    cwd: str | PathLike[str] | None,
    netns: Any,
    cgroup: str | PathLike[str] | None,
    rights: Privileges,
    folder: Callable[[], Path],
) -> LoaderProcess:
    """Starts a command; see `Bpf.start`. A relative path is looked up in `folders`, unless `cwd` is given.

    `rights` are those that it gets. `folder` returns the folder for the files that are fetched from it.
    """
    words = words_of(command)
    check_places(cwd, netns, cgroup)
    mark = new_mark()
    token = {"LIBBPF_BPF_TOKEN_PATH": TOKEN_FOLDER} if rights.token else {}
    variables = {**token, **environment_of(env)}
    places = [Path(cwd).absolute()] if cwd is not None else [*(f.absolute() for f in folders), Path.cwd()]
    path = find_command(words[0], variables, places)
    if path is None:
        missing = explain_missing(words[0], variables, places)
        raise LoaderError("cannot start", on=words[0], why=missing.why, fix=missing.fix, errno=2)
    loads = ProgramLoads()

    def begin() -> None:
        set_mark(mark)  # before it may lose the right to raise a limit
        loads.follow()

    told = [value for name, value in variables.items() if os.environ.get(name) != value]
    before = before_now(loads, (*words, *told))
    try:
        child = spawn(
            path,
            words,
            env=variables,
            cwd=None if cwd is None else os.fspath(cwd),
            netns=None if netns is None else netns.fileno(),
            cgroup=None if cgroup is None else os.fspath(cgroup),
            rights=rights,
            begin=begin,
        )
    except BaseException as e:
        loads.close()
        if isinstance(e, OSError) and not isinstance(e, LoaderError | UnsupportedError):
            raise _not_executed(path, e, rights) from None
        raise
    loads.receive()
    if rights.user:  # it may get other privileges, which ends the record
        loads.close()
    start = os.path.abspath(cwd) if cwd is not None else os.getcwd()
    home = current_netns() if netns is None else os.dup(netns.fileno())
    return LoaderProcess(
        words,
        ProcessTree(child.pid, mark),
        child,
        before,
        home,
        path=path,
        cwd=start,
        folder=folder,
        rights=rights,
    )


def _not_executed(path: str, error: OSError, rights: Privileges) -> LoaderError:
    refused = refused_by(rights.seccomp, "execve") or explain_exec(
        path, error.errno or 0, other_user=rights.user is not None
    )
    return LoaderError("cannot start", on=path, why=refused.why, fix=refused.fix, errno=error.errno)


def attach_to_process(pid: int, folder: Callable[[], Path]) -> LoaderProcess:
    """Returns the process with that id, which another process started. Raises `LoaderError`."""
    command, tree = _command_of(pid), ProcessTree(pid)
    before = before_time(tree.started * 1e9 / os.sysconf("SC_CLK_TCK"))
    try:
        cwd = os.readlink(f"/proc/{pid}/cwd")
        home = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise LoaderError(
            "cannot attach to",
            on=f"process {pid} ({command[0]})",
            why=strerror(e.errno or 0),
            fix="run the tests as root, outside of a container" if e.errno == errno.EACCES else None,
            errno=e.errno,
        ) from None
    return LoaderProcess(command, tree, None, before, home, cwd=cwd, folder=folder)


def _command_of(pid: int) -> list[str]:
    """Returns the command line of a process. Raises `LoaderError` if there is no such process."""
    found = process_stat(pid) if isinstance(pid, int) and not isinstance(pid, bool) else None
    if found is None or not found.runs:
        raise LoaderError(
            "cannot attach to",
            on=f"process {pid!r}",
            why="there is no such process"
            if found is None
            else "it has ended, and its parent has not asked for its status",
            fix="give the id of a process that runs: pidof, or Popen.pid",
            errno=errno.ESRCH,
        )
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        words = []
    return [os.fsdecode(word) for word in words if word] or [found.name]
