"""Makes network namespaces and moves this thread into them, network_namespaces(7)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_bpfmaps.errors import UnsupportedError, remedy
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.libbpf.calls import reason

NETNS_NAMES = "/run/netns"
"""The folder with the names of network namespaces, as ip(8) uses it."""

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>


def current_netns() -> int:
    """Returns a new descriptor of this thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def create_netns() -> int:
    """Returns a descriptor of a new network namespace.

    The kernel removes the namespace when no process holds it any more. So nothing is left when this process
    ends, even if it is killed. Raises `UnsupportedError` if this process may not make one.
    """
    home = current_netns()
    try:
        if lib.unshare(_CLONE_NEWNET):
            raise _refused("cannot make a network namespace", ffi.errno)
        try:
            return current_netns()
        finally:
            _switch(home)
    finally:
        os.close(home)


@contextmanager
def inside_netns(fd: int) -> Iterator[None]:
    """Moves this thread into the namespace, and back at the end.

    Sockets, threads and processes that it makes meanwhile stay in the namespace.
    """
    home = current_netns()
    try:
        _switch(fd)
        try:
            yield
        finally:
            _switch(home)
    finally:
        os.close(home)


def _switch(fd: int) -> None:
    if lib.setns(fd, _CLONE_NEWNET):
        raise _refused("cannot enter a network namespace", ffi.errno)


_DENIED = "this needs CAP_SYS_ADMIN: run as root, or in a virtual machine: pytest --bpf-kernel=6.1"
_MANY = "this user may have no more network namespaces: raise sysctl user.max_net_namespaces"


def _refused(what: str, number: int) -> UnsupportedError:
    return UnsupportedError(
        what,
        why=reason(number),
        fix=_MANY if number == errno.ENOSPC else remedy(number, _DENIED),
        errno=number,
    )
