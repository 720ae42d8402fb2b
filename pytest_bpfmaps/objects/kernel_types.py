"""Has libbpf read the kernel's types before it loads struct_ops maps.

An older libbpf reads them only for a program that needs them. Without them it follows a null pointer in each
struct_ops map, also in one that is left out, and this process ends.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from pytest_bpfmaps.errors import LoadError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.libbpf import capture_log, lib, version
from pytest_bpfmaps.objects.map_spec import MapSpec
from pytest_bpfmaps.programs.program_spec import ProgramSpec

_FIRST = (1, 5)  # the first that was seen to read them for the maps, too
_NO_FUNCTION = b"bpfmaps_no_function"


def read_kernel_types(name: str, maps: Iterable[MapSpec], programs: Iterable[ProgramSpec]) -> None:
    """Has libbpf read them for the object `name`, if it has struct_ops maps and libbpf is that old.

    Raises `LoadError` where libbpf has no way to read them.
    """
    if version() >= _FIRST or not any(m.type == MapType.STRUCT_OPS for m in maps):
        return
    program = next(iter(programs), None)
    if program is None:
        raise _refused(
            name,
            "it has no program, and this libbpf reads the kernel's types for programs only",
            "fill in a member that is a program, or use libbpf 1.5 or later",
        )
    with capture_log() as log:  # libbpf reads them to find the function; as there is none, nothing changes
        lib.bpf_program__set_attach_target(program.handle, 0, _NO_FUNCTION)
    if "Error loading vmlinux BTF" in log.text:
        raise _refused(
            name,
            "the kernel shows no types of its own in /sys/kernel/btf/vmlinux",
            "run it on a kernel with CONFIG_DEBUG_INFO_BTF=y: pytest --bpf-kernel=6.12",
        )


def _refused(name: str, why: str, fix: str) -> LoadError:
    on = f"{name}: its struct_ops maps"
    return LoadError("cannot load", on=on, why=why, fix=fix, errno=errno.EINVAL)
