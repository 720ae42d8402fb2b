"""Makes the error of a refused attachment: the reason, what is attached there already, what to do."""

from __future__ import annotations

import errno
import os

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.errors import AttachError
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.privileges import refusal_hint
from pytest_bpfmaps.libbpf import ffi, lib, to_str
from pytest_bpfmaps.libbpf.calls import as_errno, reason


def show_target(target: Target) -> str:
    """Returns a target as text: ``to interface='veth0', direction='ingress'``."""
    return "to " + ", ".join(f"{name}={value!r}" for name, value in target.items())


def refused(
    number: int,
    on: str,
    target: Target,
    *,
    type: ProgramType | int,
    there: list[int] | None = None,
    fix: str | None = None,
    details: str | None = None,
) -> AttachError:
    """Returns the error for a positive errno; `there` has the ids of the programs attached there already."""
    why = reason(number)
    if there and number in (errno.EBUSY, errno.EEXIST, errno.EPERM):
        why += f"; attached there already: {', '.join(map(program_name, there))}"
        fix = fix or "detach it first, or use link.update(program) to put this one in its place"
    if fix is None and number in (errno.EPERM, errno.EACCES):
        fix = refusal_hint(str(type))
    return AttachError(
        f"cannot attach {on}",
        on=show_target(target),
        why=why,
        fix=fix,
        details=details or None,
        errno=as_errno(number),
    )


def program_name(program_id: int) -> str:
    """Returns the name of a program by its id: ``'drop_port' (id 17)``."""
    fd = lib.bpf_prog_get_fd_by_id(program_id)
    if fd < 0:
        return f"id {program_id}"
    try:
        info = ffi.new("struct bpf_prog_info *")
        size = ffi.new("uint32_t *", ffi.sizeof("struct bpf_prog_info"))
        lib.bpf_obj_get_info_by_fd(fd, info, size)
        return f"{to_str(info.name)!r} (id {program_id})"
    finally:
        os.close(fd)


def programs_at(fd: int, attach_type: int) -> list[int]:
    """Returns the ids of the programs attached to a cgroup, network namespace, interface or map.

    `fd` is its descriptor, or the index of the interface. Empty if the kernel refuses the query, or if there
    are more than 64. Source: ``BPF_PROG_QUERY``.
    """
    ids, count = ffi.new("uint32_t[64]"), ffi.new("uint32_t *", 64)
    if lib.bpf_prog_query(fd, attach_type, 0, ffi.NULL, ids, count):
        return []
    return list(ids[0 : count[0]])
