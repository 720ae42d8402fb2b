"""Finds the interface, cgroup or namespace that a target names, and makes a link there."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.attach.refusals import show_target
from pytest_bpfmaps.errors import AttachError, closest
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.netns import inside_netns
from pytest_bpfmaps.libbpf import capture_log, lib, opts
from pytest_bpfmaps.libbpf.calls import reason

Way = Callable[[Any, Target, str], Any]
"""Attaches the program with a libbpf handle to a target; the text is the program's name in messages."""

Ways = Sequence[tuple[frozenset[str], frozenset[str], Way]]
"""For each way to attach: the keywords that are required, those that are allowed, and the function."""


def program_type(handle: Any) -> ProgramType | int:
    """Returns the type of the program with that libbpf handle."""
    return ProgramType.from_number(lib.bpf_program__type(handle))


def create_link(handle: Any, where: int, attach_type: int, flags: int = 0) -> int:
    """Returns a new link's descriptor, or a negative errno (``BPF_LINK_CREATE``, Linux 5.7)."""
    with capture_log():
        return int(
            lib.bpf_link_create(
                lib.bpf_program__fd(handle), where, attach_type, opts("bpf_link_create_opts", flags=flags)
            )
        )


@contextlib.contextmanager
def interface_of(target: Target, on: str) -> Iterator[int]:
    """Gives the index of ``target["interface"]``.

    Until the end of the ``with`` block, this thread is in the network namespace of the interface.
    """
    interface = target["interface"]
    with contextlib.ExitStack() as stack:
        if "netns" in target:
            stack.enter_context(inside_netns(stack.enter_context(descriptor_of(target, "netns", on))))
        elif hasattr(interface, "enter"):
            stack.enter_context(interface.enter())
        if isinstance(interface, str):
            yield interface_index(interface, target, on)
        elif isinstance(index := getattr(interface, "index", interface), int):
            _check_index(index, target, on)
            yield index
        else:
            raise AttachError(
                f"cannot attach {on}",
                on=show_target(target),
                why=f"interface= is {type(interface).__name__}",
                fix="give an interface's name, its index, or an interface of bpf_netns",
                errno=errno.EINVAL,
            )


def _check_index(index: int, target: Target, on: str) -> None:
    """Raises `AttachError` if no interface of this thread's namespace has that index.

    The kernel answers with EINVAL or ENODEV, and these have other causes, too.
    """
    there = socket.if_nameindex()
    if not there or index in dict(there):  # a sandbox may hide them all
        return
    names = ", ".join(f"{name} ({number})" for number, name in there)
    raise AttachError(
        f"cannot attach {on}",
        on=show_target(target),
        why=f"this network namespace has no interface with the index {index}",
        fix=f"there are: {names}; for another namespace, give netns= too, or an interface of bpf_netns",
        errno=errno.ENODEV,
    )


def interface_index(interface: str, target: Target, on: str) -> int:
    """Returns the index of a network interface of this thread's namespace."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise AttachError(
            f"cannot attach {on}",
            on=show_target(target),
            why="this network namespace has no interface of that name",
            fix=closest(interface, (n for _, n in socket.if_nameindex())),
            errno=errno.ENODEV,
        ) from None


@contextlib.contextmanager
def descriptor_of(target: Target, key: str, on: str) -> Iterator[int]:
    """Gives a descriptor for ``target[key]``, which is a descriptor, an object that has one, or a path."""
    value = target[key]
    if isinstance(value, int):
        yield value
    elif hasattr(value, "fileno"):
        yield value.fileno()
    elif not isinstance(value, str | bytes | os.PathLike):
        raise AttachError(
            f"cannot attach {on}",
            on=show_target(target),
            why=f"{key}= is {type(value).__name__}",
            fix="give a path, a descriptor, or an object that has one",
            errno=errno.EINVAL,
        )
    else:
        try:
            fd = os.open(value, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            why, fix = _missing_path(value, key) if e.errno == errno.ENOENT else (reason(e.errno or 0), None)
            raise AttachError(
                f"cannot attach {on}", on=show_target(target), why=why, fix=fix, errno=e.errno
            ) from e
        try:
            yield fd
        finally:
            os.close(fd)


def _missing_path(path: str | bytes | os.PathLike[str], key: str) -> tuple[str, str]:
    """Returns which part of a path does not exist, and what to do, with similar names in its folder."""
    whole = Path(os.fsdecode(path))
    there = next((p for p in whole.parents if p.exists()), Path())
    lacking = whole.relative_to(there).parts[0]
    try:
        near = get_close_matches(lacking, os.listdir(there), n=3, cutoff=0.6)
    except OSError:
        near = []
    hint = "make it first, or take the fixture bpf_cgroup" if key == "cgroup" else "make it first"
    return f"there is no {lacking!r} in {there} (ENOENT)", (
        closest(lacking, near) + " or " if near else ""
    ) + hint


def choose(target: Target, key: str, choices: Mapping[str, int], on: str) -> int:
    """Returns the number for the word in ``target[key]``."""
    number = choices.get(target[key])
    if number is None:
        raise AttachError(
            f"cannot attach {on}",
            on=show_target(target),
            why=f"there is no {key} {target[key]!r}",
            fix=closest(str(target[key]), choices),
            errno=errno.EINVAL,
        )
    return number


def refuse_keys(target: Target, keys: tuple[str, ...], on: str, why: str) -> None:
    """Raises `AttachError` if the target has one of `keys`. `why` says why they do not fit this program."""
    extra = [k for k in keys if k in target]
    if extra:
        raise AttachError(
            f"cannot attach {on}",
            on=show_target(target),
            why=why,
            fix=f"leave out {', '.join(extra)}",
            errno=errno.EINVAL,
        )


# keywords as libbpf, bcc, bpftool and ip name them, and our names
_OTHER_WORDS = {
    **dict.fromkeys(("ifindex", "ifname", "dev", "device", "iface"), "interface"),
    **dict.fromkeys(("func", "func_name", "symbol", "name"), "function"),
    **dict.fromkeys(("path", "binary_path", "library"), "binary"),
    **dict.fromkeys(("pattern", "syms"), "functions"),
    **dict.fromkeys(("cgroup_fd", "cgroup_path"), "cgroup"),
    **dict.fromkeys(("tp", "tp_name"), "tracepoint"),
    "bpf_cookie": "cookie",
    "prio": "priority",
}


def find_way(ways: Ways, target: Target, on: str) -> Way:
    """Returns the function that attaches to a target with these keywords. Raises `AttachError`."""
    names = frozenset(target)
    for required, optional, way in ways:
        if required <= names <= required | optional:
            return way
    raise _no_way(target, on, [(required, optional) for required, optional, _ in ways])


def _no_way(target: Target, on: str, ways: Iterable[tuple[frozenset[str], frozenset[str]]]) -> AttachError:
    """Returns the error for keywords of a target that do not go together.

    `ways` has, for each way to attach, the keywords that are required and those that are allowed.
    """
    given = frozenset(target)
    known = sorted({name for way in ways for names in way for name in names})
    if unknown := [name for name in target if name not in known]:
        meant = _OTHER_WORDS.get(unknown[0])
        why = f"no such target: {', '.join(unknown)}"
        fix = f"it is called {meant}" if meant else closest(unknown[0], known)
    else:
        why = "these keywords do not go together"
        required, optional = min(
            ways, key=lambda way: (len(way[0] - given) + len(given - way[0] - way[1]), -len(given & way[0]))
        )
        lacking, extra = sorted(required - given), sorted(given - required - optional)
        steps = [f"give {', '.join(lacking)}"] if lacking else []
        steps += [f"leave out {', '.join(extra)}"] if extra else []
        fix = ", and ".join(steps)
    return AttachError(f"cannot attach {on}", on=show_target(target), why=why, fix=fix, errno=errno.EINVAL)
