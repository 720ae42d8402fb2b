"""Attaches to sockets, maps of sockets, and netfilter hooks."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.attach.link_types import AttachType
from pytest_bpfmaps.attach.links import Attachment, FdLink, Link
from pytest_bpfmaps.attach.refusals import programs_at, refused, show_target
from pytest_bpfmaps.attach.targets import choose, create_link, descriptor_of, program_type
from pytest_bpfmaps.errors import AttachError
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.netns import inside_netns
from pytest_bpfmaps.libbpf import check, lib
from pytest_bpfmaps.libbpf.syscalls import BPF_LINK_CREATE, bpf, pack

# socket(7), <asm-generic/socket.h>
_ATTACH = {ProgramType.SOCKET_FILTER: (50, 27), ProgramType.SK_REUSEPORT: (52, 68)}
# <linux/netfilter.h>
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_FAMILIES = {"ipv4": 2, "ipv6": 10}


def to_map(handle: Any, target: Target, on: str) -> Link:
    """Attaches a sk_skb or sk_msg program to a sockmap or sockhash (Linux 4.14; by a link from 6.10 on).

    A socket takes the map's programs when it is put into the map, and keeps them while it is in the map.
    """
    attach_type = int(lib.bpf_program__expected_attach_type(handle))
    if attach_type == 0:
        raise AttachError(
            f"cannot attach {on}",
            on=show_target(target),
            why="its section does not say what the program is for",
            fix='write SEC("sk_skb/stream_verdict"), SEC("sk_skb/stream_parser") or SEC("sk_msg")',
            errno=errno.EINVAL,
        )
    the_map = target["map"]
    fd: Any = getattr(the_map, "fd", the_map)
    program_fd = int(lib.bpf_program__fd(handle))
    result = create_link(handle, fd, attach_type)
    if result >= 0:
        return FdLink(result, on)
    if -result == errno.EINVAL:  # the kernel has no such kind of link
        result = lib.bpf_prog_attach(program_fd, fd, attach_type, 0)
    if result < 0:
        there = programs_at(fd, attach_type)
        fix = None
        if -result in (errno.EINVAL, errno.EOPNOTSUPP):
            fix = "give a map of type sockmap or sockhash"
        raise refused(-result, on, target, type=program_type(handle), there=there, fix=fix)
    # The link needs descriptors of its own: the test may close the map or the program first.
    return Attachment(on, f"{the_map}", _undo_map(os.dup(program_fd), os.dup(fd), attach_type))


def _undo_map(program_fd: int, map_fd: int, attach_type: int) -> Callable[[], None]:
    def undo() -> None:
        try:
            result = lib.bpf_prog_detach2(program_fd, map_fd, attach_type)
        finally:
            os.close(program_fd)
            os.close(map_fd)
        if result != -errno.ENOENT:
            check(result, AttachError, "cannot detach the program", on="of a map of sockets")

    return undo


def to_socket(handle: Any, target: Target, on: str) -> Link:
    """Attaches a socket filter (Linux 4.1) or a sk_reuseport program (Linux 4.19), by setsockopt(2).

    The socket keeps the program until the socket is closed, even if this process closes the program.
    """
    attach, detach = _ATTACH[ProgramType(program_type(handle))]
    with descriptor_of(target, "socket", on) as fd:
        try:
            _set(fd, attach, int(lib.bpf_program__fd(handle)))
        except OSError as e:
            fix = None
            if e.errno == errno.EINVAL and attach == _ATTACH[ProgramType.SK_REUSEPORT][0]:
                fix = "set SO_REUSEPORT on the socket, and bind it first"
            raise refused(e.errno or 0, on, target, type=program_type(handle), fix=fix) from e
        inode = os.fstat(fd).st_ino

    def undo() -> None:
        with contextlib.suppress(OSError):  # a closed socket has no program any more
            if os.fstat(fd).st_ino == inode:
                _set(fd, detach, 0)

    def replace(program_fd: int) -> None:
        _set(fd, attach, program_fd)

    return Attachment(on, f"socket {fd}", undo, replace)


def _set(fd: int, option: int, value: int) -> None:
    duplicate = socket.socket(fileno=os.dup(fd))
    with duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, option, value)


def to_hook(handle: Any, target: Target, on: str) -> Link:
    """Attaches a netfilter program (Linux 6.4, commit 84601d6ee68a)."""
    family = choose({"family": "ipv4", **target}, "family", _FAMILIES, on)
    hook = choose(target, "hook", _HOOKS, on)
    # libbpf has a function for this only from 1.3 on, so this calls the kernel itself.
    attributes = pack(
        ("I", lib.bpf_program__fd(handle)),
        ("I", 0),
        ("I", AttachType.NETFILTER),
        ("I", 0),
        ("I", family),
        ("I", hook),
        ("i", target.get("priority", 0)),
        ("I", 0),
    )
    with contextlib.ExitStack() as stack:
        if "netns" in target:
            stack.enter_context(inside_netns(stack.enter_context(descriptor_of(target, "netns", on))))
        try:
            return FdLink(bpf(BPF_LINK_CREATE, attributes), on)
        except OSError as e:
            fix = None
            if e.errno in (errno.EINVAL, errno.EBUSY, errno.EEXIST):
                fix = (
                    "give a priority that no other program at this hook has, and not the smallest or largest"
                )
            raise refused(e.errno or 0, on, target, type=ProgramType.NETFILTER, fix=fix) from e
