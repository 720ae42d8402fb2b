"""Iterators: programs that the kernel runs once for each object of a kind, such as tasks or map elements.

https://docs.kernel.org/bpf/bpf_iterators.html (Linux 5.8, commit de4e05cac46d).
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from typing import Any

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.attach.links import Link
from pytest_bpfmaps.errors import AttachError, UnsupportedError, closest
from pytest_bpfmaps.libbpf import check, ffi, lib, opts

ORDERS = {"self_only": 1, "descendants_pre": 2, "descendants_post": 3, "ancestors_up": 4, "children": 5}
"""``enum bpf_cgroup_iter_order``."""

FIELDS = frozenset({"map", "cgroup", "order", "pid", "tid"})
_TOGETHER = ({"map"}, {"cgroup", "order"}, {"pid", "tid"})
_TRACE_ITER = 28  # enum bpf_attach_type
_INFO_SIZE = 16  # union bpf_iter_link_info
_CHUNK = 1 << 16


class IteratorLink(Link):
    """An attached iterator. Each `read` runs it over the kernel's objects, and so does a ``for`` loop."""

    def read_bytes(self) -> bytes:
        """Runs the iterator once, and returns what it wrote with ``bpf_seq_write`` or ``bpf_seq_printf``."""
        fd = check(lib.bpf_iter_create(self.fd), AttachError, "cannot run the iterator", on=self._on)
        try:
            return b"".join(iter(lambda: os.read(fd, _CHUNK), b""))
        except OSError as e:
            raise AttachError(
                "cannot read the iterator",
                on=self._on,
                why=os.strerror(e.errno or 0),
                fix="one element wrote more than the kernel's buffer holds"
                if e.errno == errno.E2BIG
                else None,
                errno=e.errno,
            ) from None
        finally:
            os.close(fd)

    def read(self) -> str:
        """Runs the iterator once, and returns the text that it printed with ``BPF_SEQ_PRINTF``."""
        return self.read_bytes().decode(errors="replace")

    def __iter__(self) -> Iterator[str]:
        """Runs the iterator once, and yields the lines of its text, without line ends."""
        return iter(self.read().splitlines())


def is_iterator(handle: Any) -> bool:
    """Returns whether the program with that libbpf handle is an iterator."""
    return bool(lib.bpf_program__expected_attach_type(handle) == _TRACE_ITER)


def attach(handle: Any, target: Target, on: str) -> IteratorLink:
    """Attaches an iterator; `target` has `map`, `cgroup` and `order`, `pid` or `tid`, or nothing.

    A task iterator can be restricted to a task from Linux 6.1 on, commit f0d74c4da1f0. Cgroup iterators exist
    from 6.1 on, commit d4ccaf58a847.
    """
    for name in target:
        if name not in FIELDS:
            raise _wrong(on, f"an iterator has no target {name!r}", closest(name, FIELDS))
    if not any(target.keys() <= each for each in _TOGETHER) or target.keys() == {"order"}:
        raise _wrong(on, "these keywords do not go together", "give map=, cgroup= with order=, pid= or tid=")
    with contextlib.ExitStack() as stack:
        info = _pack(target, on, stack)
        data = ffi.new("char[]", info)
        settings = opts("bpf_iter_attach_opts")
        if target:
            settings.link_info, settings.link_info_len = (
                ffi.cast("union bpf_iter_link_info *", data),
                _INFO_SIZE,
            )
        handle = lib.bpf_program__attach_iter(handle, settings)
        number = ffi.errno
    if handle == ffi.NULL:
        raise OSError(number, os.strerror(number))
    link = IteratorLink(handle, on)
    _check_restricted(link, target, on)
    return link


def _pack(target: Target, on: str, stack: contextlib.ExitStack) -> bytes:
    if "map" in target:
        packed = struct.pack("=I", getattr(target["map"], "fd", target["map"]))
    elif "cgroup" in target:
        order = target.get("order", "descendants_pre")
        if order not in ORDERS:
            raise _wrong(on, f"there is no order {order!r}", closest(order, ORDERS))
        packed = struct.pack("=II", ORDERS[order], _descriptor(target["cgroup"], stack))
    else:
        packed = struct.pack("=II", _id(target.get("tid")), _id(target.get("pid")))
    return packed.ljust(_INFO_SIZE, b"\0")


def _id(task: Any) -> int:
    return int(getattr(task, "pid", task) or 0)


def _descriptor(target: Any, stack: contextlib.ExitStack) -> int:
    if isinstance(target, int):
        return target
    if hasattr(target, "fileno"):
        return int(target.fileno())
    fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _check_restricted(link: IteratorLink, target: Target, on: str) -> None:
    """Raises an error if the kernel ignored the target: an iterator takes only the kind that it runs over.

    Task iterators before Linux 6.1 ignore `pid` and `tid`: for these it is an `UnsupportedError`.
    """
    if not target:
        return
    info = ffi.new("uint64_t[16]")
    size = ffi.new("uint32_t *", ffi.sizeof(info))
    check(lib.bpf_obj_get_info_by_fd(link.fd, info, size), AttachError, "cannot look at the link of", on=on)
    # These words follow the type, the ids, and the name's address and length. The kernel writes 0 where the
    # iterator took nothing. A tid and a pid are in the place of a cgroup's id.
    map_id, *ids, order = ffi.cast("uint32_t *", info)[7:11]
    if ("map" in target and not map_id) or ("cgroup" in target and not order):
        link.close()
        kind = "map" if "map" in target else "cgroup"
        raise _wrong(on, f"this iterator does not run over a {kind}", f"leave {kind}= out of attach()")
    if not {_id(target[name]) for name in ("tid", "pid") if name in target} <= set(ids):
        link.close()
        raise UnsupportedError(
            f"cannot restrict {on}",
            on=f"to {', '.join(f'{n}={v}' for n, v in target.items())}",
            why="this kernel's task iterators run over all tasks (restricted: Linux 6.1)",
            fix="compare the pid in the program, with a global that the test sets",
            errno=errno.EOPNOTSUPP,
        )


def _wrong(on: str, why: str, fix: str) -> AttachError:
    return AttachError(f"cannot attach {on}", why=why, fix=fix, errno=errno.EINVAL)
