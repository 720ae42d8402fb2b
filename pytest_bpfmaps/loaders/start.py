"""Starts a command as a `LoaderProcess`, or attaches to a process that runs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from pytest_bpfmaps.errors import LoaderError, UnsupportedError
from pytest_bpfmaps.kernel.netns import current_netns
from pytest_bpfmaps.loaders.exec_errors import explain_exec, explain_missing, find_command
from pytest_bpfmaps.loaders.kernel_objects import before_now, before_time
from pytest_bpfmaps.loaders.process import LoaderProcess
from pytest_bpfmaps.loaders.process_tree import MARK, ProcessTree
from pytest_bpfmaps.loaders.running_process import name_of
from pytest_bpfmaps.loaders.seccomp import refused_by
from pytest_bpfmaps.loaders.spawn import Privileges, spawn
from pytest_bpfmaps.loaders.token_namespaces import TOKEN_FOLDER

_numbers = itertools.count()


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
    if isinstance(command, str | PathLike) or not command:
        fix = f"give a list: bpf.start({str(command).split()!r})" if command else "bpf.start(['./agent'])"
        raise LoaderError("cannot start", on=repr(command), why="it is no list of words", fix=fix)
    words = [os.fspath(word) for word in command]
    mark = f"{os.getpid()}-{next(_numbers)}"
    told = {"LIBBPF_BPF_TOKEN_PATH": TOKEN_FOLDER} if rights.token else {}
    variables = {**told, **(os.environ if env is None else env), MARK: mark}
    places = [Path(cwd).absolute()] if cwd is not None else [*(f.absolute() for f in folders), Path.cwd()]
    path = find_command(words[0], variables, places)
    if path is None:
        missing = explain_missing(words[0], variables, places)
        raise LoaderError("cannot start", on=words[0], why=missing.why, fix=missing.fix, errno=2)
    _check_folder(words[0], cwd)
    before = before_now()
    try:
        child = spawn(
            path,
            words,
            env=variables,
            cwd=None if cwd is None else os.fspath(cwd),
            netns=None if netns is None else netns.fileno(),
            cgroup=None if cgroup is None else os.fspath(cgroup),
            rights=rights,
        )
    except (LoaderError, UnsupportedError):  # they are OSErrors, too
        raise
    except OSError as e:
        refused = refused_by(rights.seccomp, "execve") or explain_exec(
            path, e.errno or 0, other_user=rights.user is not None
        )
        raise LoaderError("cannot start", on=path, why=refused.why, fix=refused.fix, errno=e.errno) from None
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


def _check_folder(name: str, cwd: str | PathLike[str] | None) -> None:
    if cwd is not None and not os.path.isdir(cwd):
        raise LoaderError(
            "cannot start",
            on=f"{name} in {os.fspath(cwd)}",
            why="there is no such folder",
            fix="make it first",
            errno=2,
        )


def attach_to_process(pid: int, folder: Callable[[], Path]) -> LoaderProcess:
    """Returns the process with that id, which another process started. Raises `LoaderError`."""
    command, tree = name_of(pid), ProcessTree(pid)
    before = before_time(tree.started * 1e9 / os.sysconf("SC_CLK_TCK"))
    home = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    cwd = os.readlink(f"/proc/{pid}/cwd")
    return LoaderProcess(command, tree, None, before, home, cwd=cwd, folder=folder)
