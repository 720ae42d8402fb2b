"""Attaching to what belongs to the network: interfaces, cgroups, network namespaces."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from ..errors import AttachError, closest
from ..libbpf import lib
from ..libbpf.calls import reason

Target = dict[str, Any]


def to_interface(handle: Any, target: Target, on: str) -> Any:
    return lib.bpf_program__attach_xdp(handle, interface_index(target["interface"], on))


def interface_index(interface: str | int, on: str) -> int:
    """The index of a network interface of this namespace."""
    if isinstance(interface, int):
        return interface
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise AttachError(
            f"cannot attach {on}",
            on=f"to interface {interface!r}",
            why="there is none of that name in this network namespace",
            fix=closest(interface, (n for _, n in socket.if_nameindex())),
            errno=errno.ENODEV,
        ) from None


def to_cgroup(handle: Any, target: Target, on: str) -> Any:
    return _with_descriptor(target["cgroup"], on, lambda fd: lib.bpf_program__attach_cgroup(handle, fd))


def to_netns(handle: Any, target: Target, on: str) -> Any:
    return _with_descriptor(target["netns"], on, lambda fd: lib.bpf_program__attach_netns(handle, fd))


def _with_descriptor(target: Any, on: str, call: Callable[[int], Any]) -> Any:
    """Calls with a descriptor of `target`: one that is open already, or a path."""
    if isinstance(target, int):
        return call(target)
    if hasattr(target, "fileno"):
        return call(target.fileno())
    try:
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise AttachError(
            f"cannot attach {on}", on=f"to {target}", why=reason(e.errno or 0), errno=e.errno
        ) from e
    try:
        return call(fd)
    finally:
        os.close(fd)
