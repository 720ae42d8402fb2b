"""Network namespaces of this thread, network_namespaces(7)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.libbpf.calls import reason

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>


def current_netns() -> int:
    """A new descriptor of this thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def create_netns() -> int:
    """A descriptor of a new network namespace; the kernel removes it when nobody holds it any more.

    That is why nothing is left of it after this process, however that ends. Raises `UnsupportedError` where
    this process may not make one.
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
    """This thread is in the namespace, and afterwards where it was before.

    Sockets, threads and processes that it makes meanwhile stay in there.
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


def _refused(what: str, number: int) -> UnsupportedError:
    return UnsupportedError(
        what,
        why=reason(number),
        fix="it needs CAP_SYS_ADMIN: run as root, or in a virtual machine: pytest --bpf-kernel=6.1",
        errno=number,
    )
