"""Attaches tc programs: by a tcx link if the kernel has them, else as a filter of a clsact qdisc."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.attach.link_types import AttachType
from pytest_bpfmaps.attach.links import Attachment, FdLink, Link
from pytest_bpfmaps.attach.refusals import programs_at, refused, show_target
from pytest_bpfmaps.attach.targets import choose, create_link, program_type, refuse_keys
from pytest_bpfmaps.errors import AttachError
from pytest_bpfmaps.kernel.netns import current_netns, inside_netns
from pytest_bpfmaps.libbpf import capture_log, lib, opts, to_str
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.libbpf.syscalls import BPF_LINK_CREATE, bpf, pack

DIRECTIONS = {"ingress": 1, "egress": 2}  # enum bpf_tc_attach_point
_TCX = {1: AttachType.TCX_INGRESS, 2: AttachType.TCX_EGRESS}
_BOTH, _REPLACE = 3, 1
_BEFORE, _AFTER, _LINK = 1 << 3, 1 << 4, 1 << 13  # BPF_F_*
_GONE = (errno.ENODEV, errno.ENOENT, errno.EINVAL)

_filters: Counter[tuple[int, int]] = Counter()
"""How many of our filters are in each clsact qdisc that this process made.

A key is the inode of the network namespace, and the index of the interface.
"""


def attach(handle: Any, index: int, target: Target, on: str) -> Link:
    """Attaches a tc program to an interface of this thread's namespace.

    Without a priority it makes a tcx link (Linux 6.6, commit e420bed02507): at the end of the list, or at the
    place that ``before=`` or ``after=`` names. With a priority, or if the kernel has no tcx links, it makes a
    filter in direct-action mode (Linux 4.5). For ``SEC("tcx/…")`` only a priority makes a filter. When this
    process is killed, its links go and its filters stay.
    """
    refuse_keys(target, ("mode",), on, "a mode is for XDP")
    point = _direction(handle, target, on)
    if "before" in target or "after" in target:
        why = "only filters have a priority; tcx links have an order"
        refuse_keys(target, ("priority", "handle"), on, why)
        return _in_order(handle, index, point, target, on)
    if "priority" not in target and "handle" not in target:
        result = create_link(handle, index, _TCX[point])
        if result >= 0:
            return FdLink(result, on)
        if -result != errno.EINVAL:  # with EINVAL, the kernel has no such kind of link
            there = programs_at(index, _TCX[point])
            raise refused(-result, on, target, type=program_type(handle), there=there)
        _refuse_filter(handle, point, target, on)
    return _filter(handle, index, point, target, on)


def _refuse_filter(handle: Any, point: int, target: Target, on: str) -> None:
    """Raises `AttachError` for a program of ``SEC("tcx/…")``: a loader in C makes no filter of it."""
    if to_str(lib.bpf_program__section_name(handle)).startswith("tcx/"):
        direction = next(name for name, number in DIRECTIONS.items() if number == point)
        raise AttachError(
            f"cannot attach {on}",
            on=show_target(target),
            why="its section asks for tcx, and this kernel has no tcx links (Linux 6.6)",
            fix=f'write SEC("tc") and direction="{direction}": such a program is attached as a filter here; '
            f'or mark the test bpf_requires("tcx/{direction}")',
            errno=errno.EINVAL,
        )


def _in_order(handle: Any, index: int, point: int, target: Target, on: str) -> Link:
    """Attaches before or after another link or program, or before or after all (True).

    libbpf has a function for this only from 1.3 on, so this calls the kernel itself.
    """
    flags, relative = 0, 0
    for key, flag in (("before", _BEFORE), ("after", _AFTER)):
        other = target.get(key)
        if other is None:
            continue
        flags |= flag
        if other is not True:
            relative = getattr(other, "fd", -1)
            flags |= _LINK if isinstance(other, Link) else 0
    if relative < 0:
        raise AttachError(
            f"cannot attach {on}",
            on=show_target(target),
            why="before= and after= take a link or a program that is attached there, or True",
            fix="give the link that attach() returned: before=link",
            errno=errno.EINVAL,
        )
    attributes = pack(
        ("I", lib.bpf_program__fd(handle)),
        ("I", index),
        ("I", _TCX[point]),
        ("I", flags),
        ("I", relative),
        ("I", 0),
        ("Q", 0),  # any revision of the list
    )
    try:
        return FdLink(bpf(BPF_LINK_CREATE, attributes), on)
    except OSError as e:
        there = programs_at(index, _TCX[point])
        fix = (
            "this needs Linux 6.6; give a priority instead" if e.errno == errno.EINVAL and not there else None
        )
        raise refused(e.errno or 0, on, target, type=program_type(handle), there=there, fix=fix) from e


def _direction(handle: Any, target: Target, on: str) -> int:
    """Returns the direction of the target, else that of the section: ``SEC("tcx/ingress")``."""
    if "direction" in target:
        return choose(target, "direction", DIRECTIONS, on)
    of_section = to_str(lib.bpf_program__section_name(handle)).rpartition("/")[2]
    if of_section in DIRECTIONS:
        return DIRECTIONS[of_section]
    raise AttachError(
        f"cannot attach {on}",
        on=show_target(target),
        why="a tc program is attached in one direction",
        fix='give direction="ingress" or direction="egress"',
        errno=errno.EINVAL,
    )


def _filter(handle: Any, index: int, point: int, target: Target, on: str) -> Link:
    namespace = current_netns()
    try:
        key = os.fstat(namespace).st_ino, index
        with capture_log() as log:
            made = lib.bpf_tc_hook_create(opts("bpf_tc_hook", ifindex=index, attach_point=_BOTH))
            settings = opts(
                "bpf_tc_opts",
                prog_fd=lib.bpf_program__fd(handle),
                priority=target.get("priority", 0),
                handle=target.get("handle", 0),
            )
            where = opts("bpf_tc_hook", ifindex=index, attach_point=point)
            result = made if made not in (0, -errno.EEXIST) else lib.bpf_tc_attach(where, settings)
        if made == 0:
            _filters[key] = 0
        if result < 0:
            _drop(key, 0)
            raise refused(-result, on, target, type=program_type(handle), details=log.text)
        if key in _filters:
            _filters[key] += 1
        place = int(settings.handle), int(settings.priority)
        return Attachment(
            on,
            f"the clsact qdisc of interface {index}",
            _undo(namespace, key, point, place),
            _replace(namespace, index, point, place),
        )
    except BaseException:
        os.close(namespace)
        raise


def _undo(namespace: int, key: tuple[int, int], point: int, place: tuple[int, int]) -> Callable[[], None]:
    def undo() -> None:
        try:
            with inside_netns(namespace), capture_log():
                where = opts("bpf_tc_hook", ifindex=key[1], attach_point=point)
                result = lib.bpf_tc_detach(where, opts("bpf_tc_opts", handle=place[0], priority=place[1]))
                _drop(key, 1)
        finally:
            os.close(namespace)
        if result < 0 and -result not in _GONE:
            on = f"of interface {key[1]}"
            raise AttachError("cannot detach the tc filter", on=on, why=reason(-result), errno=-result)

    return undo


def _replace(namespace: int, index: int, point: int, place: tuple[int, int]) -> Callable[[int], None]:
    def replace(program_fd: int) -> None:
        with inside_netns(namespace), capture_log() as log:
            settings = opts(
                "bpf_tc_opts", prog_fd=program_fd, flags=_REPLACE, handle=place[0], priority=place[1]
            )
            where = opts("bpf_tc_hook", ifindex=index, attach_point=point)
            result = lib.bpf_tc_attach(where, settings)
        if result < 0:
            what, on = "cannot put another program in place of the tc filter", f"of interface {index}"
            raise AttachError(what, on=on, why=reason(-result), details=log.text, errno=-result)

    return replace


def _drop(key: tuple[int, int], count: int) -> None:
    """Subtracts `count` from the number of our filters. If none is left, removes the qdisc that we made."""
    if key not in _filters:
        return
    _filters[key] -= count
    if _filters[key] <= 0:
        del _filters[key]
        lib.bpf_tc_hook_destroy(opts("bpf_tc_hook", ifindex=key[1], attach_point=_BOTH))
