"""System calls for which the supported releases of libbpf have no function."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from functools import cache
from typing import Any

from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.libbpf.library import ffi

# architecture, as os.uname().machine names it: numbers of bpf(2), perf_event_open(2)
_NUMBERS = {
    "x86_64": (321, 298),
    "aarch64": (280, 241),
    "riscv64": (280, 241),
    "loongarch64": (280, 241),
    "s390x": (351, 331),
    "ppc64le": (361, 319),
}
# enum bpf_cmd of <linux/bpf.h>
BPF_PROG_LOAD, BPF_RAW_TRACEPOINT_OPEN, BPF_LINK_CREATE, BPF_PROG_STREAM_READ_BY_FD = 5, 17, 28, 37
BPF_TASK_FD_QUERY, BPF_TOKEN_CREATE = 20, 36
_CLOEXEC = 1 << 3  # PERF_FLAG_FD_CLOEXEC
# the same on every architecture
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _LSM_LIST_MODULES = 429, 430, 431, 432, 461
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 1, 1, 6
_AT_FDCWD, _FROM_DESCRIPTOR = -100, 4  # MOVE_MOUNT_F_EMPTY_PATH


def bpf(command: int, attributes: bytes) -> int:
    """Calls bpf(2); `attributes` is the part of ``union bpf_attr`` for the command. Raises `OSError`."""
    # the kernel writes results of some commands into the buffer
    buffer = ffi.from_buffer(bytearray(attributes))
    return _call(_numbers()[0], _int(command), buffer, _int(len(attributes)))


def bpf_answer(command: int, attributes: bytes) -> bytes:
    """Calls bpf(2), and returns the attributes with what the kernel wrote into them. Raises `OSError`."""
    answer = bytearray(attributes)
    _call(_numbers()[0], _int(command), ffi.from_buffer(answer), _int(len(attributes)))
    return bytes(answer)


def perf_event_open(attributes: Any, pid: int, cpu: int) -> int:
    """Calls perf_event_open(2), and returns a descriptor that closes on exec. Raises `OSError`."""
    return _call(_numbers()[1], attributes, _int(pid), _int(cpu), _int(-1), _int(_CLOEXEC))


def lsm_list_modules() -> list[int]:
    """Returns the ids of the active security modules, lsm_list_modules(2), Linux 6.8. Raises `OSError`."""
    ids = ffi.new("uint64_t[]", 32)
    size = ffi.new("uint32_t *", ffi.sizeof(ids))
    count = _call(_LSM_LIST_MODULES, ids, size, _int(0))
    return list(ids[0:count])


def open_file_system(kind: str) -> int:
    """Mounts a file system, such as ``debugfs``, and returns a descriptor of its root.

    No folder shows it. The kernel removes it when the descriptor is closed. fsopen(2), fsmount(2), Linux 5.2.
    Raises `OSError`.
    """
    context = file_system_context(kind)
    try:
        return create_file_system(context, {})
    finally:
        os.close(context)


def file_system_context(kind: str) -> int:
    """Returns a descriptor for `create_file_system`, fsopen(2).

    The file system will belong to the user namespace of the process that has called this. Raises `OSError`.
    """
    return _call(_FSOPEN, ffi.new("char[]", kind.encode()), _int(_FSOPEN_CLOEXEC))


def create_file_system(context: int, options: Mapping[str, str]) -> int:
    """Creates a file system with mount options, and returns a descriptor of its root. Raises `OSError`."""
    for name, value in options.items():
        key, text = ffi.new("char[]", name.encode()), ffi.new("char[]", value.encode())
        _call(_FSCONFIG, _int(context), _int(_FSCONFIG_SET_STRING), key, text, _int(0))
    _call(_FSCONFIG, _int(context), _int(_FSCONFIG_CMD_CREATE), ffi.NULL, ffi.NULL, _int(0))
    return _call(_FSMOUNT, _int(context), _int(_FSMOUNT_CLOEXEC), _int(0))


def move_mount(source: int | str, folder: str) -> None:
    """Mounts what `create_file_system` returned at a folder, or moves the mount at a path there.

    move_mount(2), Linux 5.2. Raises `OSError`.
    """
    at, path = (source, "") if isinstance(source, int) else (_AT_FDCWD, source)
    texts = [ffi.new("char[]", each.encode()) for each in (path, folder)]
    _call(_MOVE_MOUNT, _int(at), texts[0], _int(_AT_FDCWD), texts[1], _int(0 if path else _FROM_DESCRIPTOR))


def pack(*fields: tuple[str, int]) -> bytes:
    """Returns the attributes of a command from pairs of a `struct` format and a number, without padding."""
    return struct.pack("=" + "".join(f for f, _ in fields), *(n for _, n in fields))


def address(data: Any) -> int:
    """Returns the address of a cffi array in memory; the caller keeps the array alive."""
    return int(ffi.cast("uintptr_t", data))


@cache
def _numbers() -> tuple[int, int]:
    machine = os.uname().machine
    if machine not in _NUMBERS:
        raise UnsupportedError(
            "cannot call the kernel", on=f"on {machine}", why="its system call numbers are not known here"
        )
    return _NUMBERS[machine]


@cache
def _libc() -> Any:
    return ffi.dlopen(None)


def _call(number: int, *arguments: Any) -> int:
    result = int(_libc().syscall(number, *arguments))
    if result < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    return result


def _int(value: int) -> Any:
    return ffi.cast("long", value)
