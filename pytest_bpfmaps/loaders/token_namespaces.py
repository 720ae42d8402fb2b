"""Makes the namespaces of an agent with a BPF token: of users, and of mounts with a bpf file system.

A container runtime, or systemd by ``PrivateBPF=``, does the same. The file system belongs to the user
namespace, and the delegations are options that only a process outside may set. A process of the namespace
makes the token from it. Source: ``kernel/bpf/token.c``, user_namespaces(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_bpfmaps.errors import UnsupportedError, strerror
from pytest_bpfmaps.kernel.delegation import Delegation
from pytest_bpfmaps.kernel.features import probe
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.libbpf.syscalls import create_file_system, file_system_context, move_mount

TOKEN_FOLDER = "/sys/fs/bpf"
"""Where an agent has the bpf file system with its token. libbpf looks there if nothing else is said."""

_NEWNS, _NEWUSER = 0x00020000, 0x10000000  # <linux/sched.h>
_RESULT = struct.Struct("=i")
_ALL_IDS = "0 0 4294967295"


@contextlib.contextmanager
def token_namespaces(wanted: Delegation) -> Iterator[tuple[int, int]]:
    """Yields descriptors of a new user namespace and of its mount namespace, for `join`.

    All users and groups have the same numbers inside. The namespaces end with their last process. Raises
    `UnsupportedError` if the kernel refuses the namespaces, or the delegation.
    """
    ours, theirs = socket.socketpair()
    helper = _fork(ours, theirs)
    made: list[int] = []
    try:
        with ours:
            _prepare(ours, helper, wanted)
            for kind in ("user", "mnt"):
                made.append(os.open(f"/proc/{helper}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
        os.waitpid(helper, 0)
        helper = 0
        yield made[0], made[1]
    finally:
        if helper:  # it has ended, because the socket is closed
            os.waitpid(helper, 0)
        for fd in made:
            os.close(fd)


def join(namespaces: tuple[int, int]) -> None:
    """Moves this process, which must have one thread, into a user and a mount namespace. Raises OSError."""
    folder = os.getcwd()
    for fd, kind in zip(namespaces, (_NEWUSER, _NEWNS), strict=True):
        _check(lib.setns(fd, kind))
    os.chdir(folder)  # setns(2) has moved it to the root


def _fork(ours: socket.socket, theirs: socket.socket) -> int:
    lib.unshare  # noqa: B018 - opens libc now; that is not safe after the fork
    with warnings.catch_warnings():
        # The child takes no lock that another thread may hold: it only calls the kernel.
        warnings.simplefilter("ignore", DeprecationWarning)
        helper = os.fork()
    if helper:
        theirs.close()
        return helper
    try:
        ours.close()
        _help(theirs)
    finally:
        os._exit(0)


def _help(wire: socket.socket) -> None:
    """Runs in the child: enters new namespaces, and opens and mounts the file system there."""
    _answer(wire, lambda: _check(lib.unshare(_NEWUSER | _NEWNS)))
    if not wire.recv(1):  # the ids are mapped
        return
    context = _answer(wire, lambda: file_system_context("bpf"))
    socket.send_fds(wire, [b"c"], [context])
    roots = socket.recv_fds(wire, 1, 1)[1]
    if roots:
        _answer(wire, lambda: move_mount(roots[0], TOKEN_FOLDER))
        wire.recv(1)  # until the other side has opened the namespaces


def _answer(wire: socket.socket, step: Callable[[], int | None]) -> int:
    """Does a step, and sends its error number, or 0. After an error the process ends."""
    try:
        done = step()
    except OSError as e:
        wire.send(_RESULT.pack(e.errno or errno.EIO))
        os._exit(0)
    wire.send(_RESULT.pack(0))
    return done or 0


def _prepare(wire: socket.socket, helper: int, wanted: Delegation) -> None:
    """Does what only a process outside of the new user namespace may do: maps ids, and delegates."""
    _expect(wire, "make a user namespace")
    with _explained("map the users of a user namespace"):
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{helper}/{name}").write_text(_ALL_IDS)
    wire.send(b"m")
    _expect(wire, "open a bpf file system in a user namespace")
    context = socket.recv_fds(wire, 1, 1)[1][0]
    try:
        with _explained("delegate BPF to a user namespace"):
            root = create_file_system(context, wanted.mount_options())
    finally:
        os.close(context)
    try:
        socket.send_fds(wire, [b"r"], [root])
    finally:
        os.close(root)
    _expect(wire, f"mount a bpf file system at {TOKEN_FOLDER}")


def _expect(wire: socket.socket, what: str) -> None:
    """Receives the result of a step. Raises `UnsupportedError` if it failed."""
    answer = wire.recv(_RESULT.size)
    number = _RESULT.unpack(answer)[0] if len(answer) == _RESULT.size else errno.ECHILD
    with _explained(what):
        if number:
            raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise UnsupportedError(
            "cannot start with a BPF token",
            on=f"cannot {what}",
            why=strerror(e.errno or 0),
            fix=_REMEDIES.get(e.errno or 0),
            errno=e.errno,
        ) from None


_REMEDIES = {
    errno.EPERM: "run the tests as root of the machine, not of a container, and not in a chroot; or in a "
    "virtual machine: pytest --bpf-kernel=6.12",
    errno.ENOSPC: "allow more user namespaces: sysctl user.max_user_namespaces",
    errno.EINVAL: "the kernel has no user namespaces, CONFIG_USER_NS: pytest --bpf-kernel=6.12 has them",
    errno.ENOENT: "mount sysfs: mount -t sysfs sysfs /sys",
}


def check_kernel() -> None:
    """Raises `UnsupportedError` if this kernel has no BPF tokens, by trying to make one."""
    found = probe("command", "token_create")
    if not found:
        raise UnsupportedError(
            "cannot start with a BPF token",
            why=f"this kernel lacks BPF_TOKEN_CREATE, which came with Linux 6.9 ({found.why})",
            fix="mark the test with bpf_requires(command='token_create'), which skips it here; "
            "'bpfmaps kernels fetch debian:trixie' gets a kernel that has it, 6.12",
            errno=errno.EOPNOTSUPP,
        )


def _check(result: int) -> None:
    if result:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
