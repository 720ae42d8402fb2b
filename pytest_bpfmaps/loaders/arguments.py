"""Checks what a test gives to `bpf.start` and to the methods of an agent."""

from __future__ import annotations

import errno
import math
import os
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from pytest_bpfmaps.errors import LoaderError

_PORTS = range(1, 1 << 16)
_TEXTS = (str, bytes, PathLike)


def wrong(what: str, why: str, fix: str, on: str | None = None) -> LoaderError:
    """Returns the error for an argument that can't be meant."""
    return LoaderError(what, on=on, why=why, fix=fix, errno=errno.EINVAL)


def words_of(command: Sequence[str | PathLike[str]]) -> list[str]:
    """Returns the words of a command as texts. Raises `LoaderError` for what is no list of words."""
    if isinstance(command, (*_TEXTS, Mapping, set)) or not isinstance(command, Iterable):
        words = os.fsdecode(command).split() if isinstance(command, _TEXTS) and command else ["./agent"]
        raise wrong(
            "cannot start", "it is no list of words", f"give a list: bpf.start({words!r})", repr(command)
        )
    words = [_word(each, command) for each in command]
    if not words or not words[0]:
        why = "its first word is empty" if words else "it has no words"
        raise wrong("cannot start", why, "name the program first: bpf.start(['./agent'])", repr(command))
    return words


def _word(each: object, command: object) -> str:
    if not isinstance(each, _TEXTS):
        why = f"its word {each!r} is no text"
        raise wrong("cannot start", why, f"give a text: {str(each)!r}", repr(command))
    text = os.fsdecode(each)
    if "\0" in text:
        why = f"its word {text!r} has a NUL character, at which the kernel would end it"
        raise wrong("cannot start", why, "leave it out", repr(command))
    return text


def environment_of(env: Mapping[str, str] | None) -> dict[str, str]:
    """Returns the environment that a process starts with. Raises `LoaderError` for what can't be in one."""
    if env is None:
        return dict(os.environ)
    if not isinstance(env, Mapping):
        raise wrong("cannot start with env=", f"{env!r} is no mapping", "give one: {**os.environ, 'A': 'b'}")
    for name, value in env.items():
        if not isinstance(name, str | bytes) or not isinstance(value, _TEXTS):
            fix = f"give texts: {{{str(name)!r}: {str(value)!r}}}"
            raise wrong("cannot start with env=", f"{name!r}: {value!r} is no pair of texts", fix)
        plain, content = os.fsdecode(name), os.fsdecode(value)
        if not plain or "=" in plain or "\0" in plain + content:
            why = f"{name!r}: {value!r} can't be a variable: its name is empty or has a '=', or it has a NUL"
            raise wrong("cannot start with env=", why, "leave such characters out")
    return {os.fsdecode(name): os.fsdecode(value) for name, value in env.items()}


def check_places(cwd: object, netns: object, cgroup: object) -> None:
    """Raises `LoaderError` for a folder, namespace or control group that is none."""
    for name, path in (("cwd", cwd), ("cgroup", cgroup)):
        if path is None:
            continue
        if not isinstance(path, _TEXTS):
            raise wrong(f"cannot start with {name}={path!r}", "it is no path", "give a text or a Path")
        if not os.path.isdir(path):
            is_file = os.path.exists(path)
            why = "it is a file, no folder" if is_file else "there is no such folder"
            fix = "give a folder, or make it first"
            raise wrong(f"cannot start with {name}={os.fsdecode(path)!r}", why, fix)
        if name == "cgroup" and not Path(os.fsdecode(path), "cgroup.procs").exists():
            fix = "give the path of one, or a cgroup of the fixture: cgroup=bpf_cgroup"
            raise wrong(f"cannot start with cgroup={os.fsdecode(path)!r}", "it is no control group", fix)
    if netns is not None and not hasattr(netns, "fileno"):
        fix = "give a namespace of the fixture: netns=bpf_netns()"
        raise wrong(f"cannot start with netns={netns!r}", "it is no network namespace", fix)


def seconds_of(timeout: float) -> float:
    """Returns a timeout. Raises `LoaderError` if it is no number of seconds."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout < math.inf:
        raise wrong(
            f"cannot wait with timeout={timeout!r}", "it is no number of seconds", "give one: timeout=10"
        )
    return timeout


def check_line(wanted: object) -> None:
    """Raises `LoaderError` for what no line of output can have."""
    what = f"cannot wait for a line with {wanted!r}"
    if isinstance(wanted, re.Pattern) and not isinstance(wanted.pattern, str):
        raise wrong(what, "it is a pattern of bytes", "make it of a text: re.compile('…')")
    if not isinstance(wanted, str | re.Pattern):
        raise wrong(what, "it is neither a text nor a pattern", "give a text, or re.compile('…')")
    if isinstance(wanted, str) and (not wanted or "\n" in wanted):
        why = "it has the end of a line" if wanted else "it is empty"
        raise wrong(what, why, "give a part of one line, or re.compile('') for any line")


def check_ready(ready: Any) -> None:
    """Raises `LoaderError` for what can't be waited for."""
    if ready is None or isinstance(ready, PathLike) or callable(ready):
        return
    if isinstance(ready, str | re.Pattern):
        check_line(ready)
    elif isinstance(ready, bool) or not isinstance(ready, int) or ready not in _PORTS:
        is_number = isinstance(ready, int) and not isinstance(ready, bool)
        why = "it is no TCP port, 1 to 65535" if is_number else "it is nothing that can be waited for"
        fix = "give a text or pattern of a line, a Path, the number of a port, or a function"
        raise wrong(f"cannot start with ready={ready!r}", why, fix)


def check_signal(number: int) -> None:
    """Raises `LoaderError` if there is no such signal."""
    if isinstance(number, bool) or not isinstance(number, int) or number not in {0, *signal.valid_signals()}:
        fix = "give its number: signal.SIGHUP"
        raise wrong(f"cannot send signal {number!r}", "there is no such signal", fix)


def check_user(user: object) -> None:
    """Raises `LoaderError` for a user that is neither a name nor a number that can be one."""
    if user is None or isinstance(user, str):
        return
    if isinstance(user, bool) or not isinstance(user, int) or not 0 <= user < 0xFFFFFFFF:
        fix = "give a name, or a number from 0 to 4294967294"
        raise wrong(
            "cannot start a process", "it is neither a user's name nor a number", fix, f"as user {user!r}"
        )


def check_capabilities(caps: object) -> None:
    """Raises `LoaderError` for capabilities that are no list of names."""
    if caps is None or (not isinstance(caps, str) and isinstance(caps, Iterable)):
        return
    raise wrong(
        f"cannot start with caps={caps!r}", "it is no list of names", "give one: caps=['BPF', 'PERFMON']"
    )


def check_file_name(name: str) -> None:
    """Raises `LoaderError` for a name that would leave its folder."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        why, fix = "that is no name of a file", "give a name without slashes"
        raise wrong(f"cannot fetch a file as {name!r}", why, fix)
