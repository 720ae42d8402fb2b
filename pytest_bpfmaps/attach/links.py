"""Attached programs: a link keeps a program at its target until it is closed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, Self

from pytest_bpfmaps.attach.link_info import watched_at
from pytest_bpfmaps.attach.link_types import LinkType, attach_type_name
from pytest_bpfmaps.errors import AttachError, UnsupportedError
from pytest_bpfmaps.kernel.open_resources import forget, forget_pin, is_kept, keep, note, note_pin
from pytest_bpfmaps.libbpf import check, ffi, lib

if TYPE_CHECKING:
    from pytest_bpfmaps.maps.pins import Pins


class Attachable(Protocol):
    """The part of a loaded program that a link uses."""

    @property
    def fd(self) -> int: ...


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What the kernel knows about a link (``BPF_OBJ_GET_INFO_BY_FD``, Linux 5.8, commit f2e10bff16a0).

    `program_id` is the id of the program that is attached now. `target` has keys that depend on the link's
    type: ``ifindex``, ``cgroup_id``, ``netns_inode``, ``map_id``, ``attach_type``; for netfilter ``family``,
    ``hook``, ``priority``.
    """

    type: LinkType | int
    id: int
    program_id: int
    target: dict[str, Any]


class Link:
    """Keeps one program at one target until `close`, the end of a ``with`` block, or the object's end.

    `arguments` named the target. They are empty for the target of the program's section.
    """

    arguments: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, handle: Any, on: str) -> None:
        self._handle = handle
        self._on = on
        self._program: object = None
        self._pins: Pins | None = None
        self._pinned: str | None = None

    @property
    def fd(self) -> int:
        """The link's descriptor; for a perf event without a link in the kernel, the event's descriptor."""
        return int(lib.bpf_link__fd(self._open()))

    @property
    def info(self) -> LinkInfo:
        """What the kernel knows about it. Raises `UnsupportedError` if the kernel has no link here."""
        return link_info(self.fd, self._on)

    def update(self, program: Attachable) -> None:
        """Puts another program of the same type in its place (Linux 5.7).

        One of the two programs is attached at any moment. Raises `AttachError`, also for kinds of links that
        can't be updated.
        """
        result = lib.bpf_link_update(self.fd, program.fd, ffi.NULL)
        check(result, AttachError, f"cannot put {program} in place of", on=self._on)
        self._on, self._program = str(program), program

    def pin(self, path: str | Path) -> None:
        """Keeps the program attached when the link is closed, under a name in a bpf file system.

        A relative `path` is below the test's own folder, `Bpf.pin_root`. If the program came from the fixture
        `bpf`, the teardown removes the pin.
        """
        where = os.fspath(path) if self._pins is None else self._pins.place(path)
        result = lib.bpf_obj_pin(self.fd, os.fsencode(where))
        check(result, AttachError, "cannot pin the link of", on=f"{self._on} at {where}")
        self._pinned = where
        if self._pins is None:
            note_pin(where, f"pin {where} of the link of {self._on}")
        else:
            self._pins.add(where)

    def unpin(self) -> None:
        """Removes the pin."""
        where, self._pinned = self._pinned, None
        if where is None:
            self._open()
            raise AttachError(
                "cannot unpin the link of", on=self._on, why="it is not pinned", errno=errno.ENOENT
            )
        forget_pin(where)
        try:
            os.unlink(where)
        except OSError as e:
            what = "cannot unpin the link of"
            raise AttachError(what, on=f"{self._on} at {where}", why=e.strerror, errno=e.errno) from e

    def close(self) -> None:
        """Detaches the program. Safe to call again."""
        handle, self._handle = self._handle, ffi.NULL
        if handle != ffi.NULL:
            forget(lib.bpf_link__fd(handle))
            check(lib.bpf_link__destroy(handle), AttachError, "cannot detach", on=self._on)

    def detach(self) -> None:
        """Does what `close` does."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "attached" if self._is_open() else "detached"
        return f"<link of {self._on}, {state}>"

    def attaches(self, program: object) -> bool:
        """Returns whether the link is open and keeps that program attached."""
        return self._program is program and self._is_open()

    def ended(self, program: object) -> bool:
        """Returns whether the link kept that program attached, and is closed."""
        return self._program is program and not self._is_open()

    def belong_to(self, descriptor: int, pins: Pins | None, program: object = None) -> None:
        """Records that the link attaches `program`.

        `descriptor` belongs to the object of the program. The link is closed with that object.
        """
        self._pins, self._program = pins, program
        note(f"link of {self._on}", [self.fd])
        if is_kept(descriptor):
            keep([self.fd])

    def _is_open(self) -> bool:
        return bool(self._handle != ffi.NULL)

    def _open(self) -> Any:
        if not self._is_open():
            raise AttachError(
                "cannot use the link of", on=self._on, why="it is detached already", errno=errno.EBADF
            )
        return self._handle


class FdLink(Link):
    """A link in the kernel, made by ``BPF_LINK_CREATE``; it owns the descriptor `fd`."""

    @property
    def fd(self) -> int:
        """The link's descriptor."""
        return int(self._open())

    def close(self) -> None:
        fd, self._handle = self._handle, -1
        if fd >= 0:
            forget(fd)
            os.close(fd)

    def _is_open(self) -> bool:
        return bool(self._handle >= 0)


class Attachment(Link):
    """A program at a target for which this kernel has no link: a tc filter, a socket's filter.

    `undo` detaches the program. If this process is killed, the program stays attached. `replace` puts the
    program with the given descriptor in its place; None if that is not possible.
    """

    def __init__(
        self, on: str, where: str, undo: Callable[[], None], replace: Callable[[int], None] | None = None
    ) -> None:
        super().__init__(undo, on)
        self._where = where
        self._replace = replace

    @property
    def fd(self) -> int:
        """Raises `UnsupportedError`: there is no descriptor."""
        self._open()
        raise UnsupportedError(
            "cannot use the link of",
            on=f"{self._on} at {self._where}",
            why="this kernel attaches it there without a link",
            errno=errno.EOPNOTSUPP,
        )

    def pin(self, path: str | Path) -> None:
        _ = self.fd

    def unpin(self) -> None:
        _ = self.fd

    def update(self, program: Attachable) -> None:
        self._open()
        if self._replace is None:
            _ = self.fd
        else:
            self._replace(program.fd)
            self._on, self._program = str(program), program

    def belong_to(self, descriptor: int, pins: Pins | None, program: object = None) -> None:
        self._program = program  # there is no descriptor to close

    def close(self) -> None:
        undo, self._handle = self._handle, None
        if undo is not None:
            undo()

    def _is_open(self) -> bool:
        return self._handle is not None


class Links:
    """Several links, iterable. They are closed from the last to the first."""

    def __init__(self, links: list[Link]) -> None:
        self._links = links

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def close(self) -> None:
        """Detaches all programs, even if one of them fails. Safe to call again."""
        close_all(self._links)

    detach = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def close_all(links: list[Link]) -> None:
    """Closes links from the last to the first; raises the first error after it has tried all."""
    failed: BaseException | None = None
    for link in reversed(links):
        try:
            link.close()
        except AttachError as e:
            failed = failed or e
    if failed:
        raise failed


def link_info(fd: int, on: str) -> LinkInfo:
    """Returns what the kernel knows about the link with that descriptor; `on` names it in messages."""
    info = ffi.new("struct bpf_link_info *")
    size = ffi.new("uint32_t *", ffi.sizeof("struct bpf_link_info"))
    result = lib.bpf_obj_get_info_by_fd(fd, info, size)
    check(result, AttachError, "cannot read the info of the link of", on=on)
    kind = LinkType.from_number(info.type)
    target = watched_at(fd, kind) or _target(kind, ffi.addressof(info[0], "_detail")[0])
    return LinkInfo(kind, info.id, info.prog_id, target)


def link_by_id(number: int) -> LinkInfo | None:
    """Returns what the kernel knows about the link with that id; None if it is gone (Linux 5.8)."""
    fd = int(lib.bpf_link_get_fd_by_id(number))
    if fd in (-errno.ENOENT, -errno.EAGAIN):  # EAGAIN: it is being made
        return None
    check(fd, AttachError, "cannot open", on=f"link id {number}")
    try:
        return link_info(fd, f"link id {number}")
    finally:
        os.close(fd)


_PLACES: dict[int, str] = {
    LinkType.NETNS: "netns_inode",
    LinkType.TCX: "ifindex",
    LinkType.NETKIT: "ifindex",
    LinkType.SOCKMAP: "map_id",
}


def _target(kind: LinkType | int, detail: Any) -> dict[str, Any]:
    """Returns the target of a link; `detail` is the union of ``struct bpf_link_info`` as 32-bit words."""
    if kind is LinkType.CGROUP:
        return {"cgroup_id": detail[0] | detail[1] << 32, "attach_type": attach_type_name(detail[2])}
    if kind is LinkType.XDP:
        return {"ifindex": detail[0]}
    if kind in _PLACES:
        return {_PLACES[kind]: detail[0], "attach_type": attach_type_name(detail[1])}
    if kind is LinkType.NETFILTER:
        priority = detail[2] - (detail[2] >> 31 << 32)  # it is signed
        return {"family": detail[0], "hook": detail[1], "priority": priority}
    return {}
