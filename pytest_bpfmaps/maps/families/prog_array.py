"""Program arrays: the targets of tail calls."""

from __future__ import annotations

import errno
import os
from typing import Any

from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.libbpf import check, ffi, lib, to_str
from pytest_bpfmaps.maps.references import Reference, ReferenceMap


class ProgramId(Reference):
    """The id of a loaded program, as ``bpftool prog list`` shows it; it equals that `Program`."""

    noun = "program id"

    def number_of(self, other: Any) -> int | None:
        """Returns the id of a program; None for any other object."""
        number = getattr(other, "id", None)
        return number if hasattr(other, "section") and isinstance(number, int) else None

    def open(self) -> int:
        """Returns a new descriptor (``BPF_PROG_GET_FD_BY_ID``, Linux 4.13, commit b16d9aa4c2b9)."""
        return check(lib.bpf_prog_get_fd_by_id(int(self)), MapError, "cannot open", on=repr(self))

    @property
    def name(self) -> str:
        """The program's name, cut after 15 characters."""
        fd = self.open()
        try:
            info = ffi.new("struct bpf_prog_info *")
            size = ffi.new("uint32_t *", ffi.sizeof("struct bpf_prog_info"))
            check(
                lib.bpf_obj_get_info_by_fd(fd, info, size), MapError, "cannot read the name of", on=repr(self)
            )
            return to_str(info.name)
        finally:
            os.close(fd)


class ProgArrayMap(ReferenceMap, types=(MapType.PROG_ARRAY,)):
    """``BPF_MAP_TYPE_PROG_ARRAY``: Linux 4.2, commit 04fd61ab36ec (read: 4.13, commit 14dc6f04f49d).

    ``m[i] = obj.programs.x``; reading gives a `ProgramId`. The kernel empties the array when no process holds
    it any more, so keep its object loaded, or pin it.
    """

    wanted = "a BPF program"
    kind = "bpf-prog"
    reference = ProgramId
    explain = {  # noqa: RUF012
        errno.EINVAL: (
            "all programs of an array have one type, which is that of the first program that uses the array",
            "give a program of the same type as those that make the tail calls",
        ),
        errno.EBUSY: (
            "a program can't be called if another one replaces a part of it (freplace)",
            "give another program",
        ),
    }
