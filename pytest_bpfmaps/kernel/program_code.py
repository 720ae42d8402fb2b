"""Reads a program's machine code, and the C lines that it came from, from the kernel as plain bytes.

It needs `CAP_SYS_ADMIN`, and ``kernel.kptr_restrict`` below 2, so that the kernel shows addresses. Source:
``struct bpf_prog_info`` of <linux/bpf.h>; Linux 5.0.
"""

from __future__ import annotations

import os
import struct
from typing import Any

from pytest_bpfmaps.kernel.btf import load_codecs
from pytest_bpfmaps.libbpf import ffi, lib, to_str

_FIELDS = (  # (field with the number of items, field with the pointer, size of an item or the field with it)
    ("jited_prog_len", "jited_prog_insns", 1),
    ("xlated_prog_len", "xlated_prog_insns", 1),
    ("nr_jited_ksyms", "jited_ksyms", 8),
    ("nr_jited_func_lens", "jited_func_lens", 4),
    ("nr_func_info", "func_info", "func_info_rec_size"),
    ("nr_line_info", "line_info", "line_info_rec_size"),
    ("nr_jited_line_info", "jited_line_info", "jited_line_info_rec_size"),
)

_FUNCTION = struct.Struct("=II")  # struct bpf_func_info: instruction, type


def program_ids() -> list[int]:
    """Returns the ids of all programs that are loaded now. Raises OSError."""
    found: list[int] = []
    number = ffi.new("uint32_t *")
    while (result := lib.bpf_prog_get_next_id(number[0], number)) == 0:
        found.append(int(number[0]))
    if result != -2:  # ENOENT: that was the last one
        raise OSError(-result, os.strerror(-result))
    return found


def program_code(number: int) -> dict[str, Any]:
    """Returns facts about the program with this id: numbers, text and bytes.

    Raises OSError if the program is no longer loaded.
    """
    fd = int(lib.bpf_prog_get_fd_by_id(number))
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd))
    try:
        first = _info(fd, ffi.new("struct bpf_prog_info *"))
        full, buffers = ffi.new("struct bpf_prog_info *"), {}
        for count, pointer, size in _FIELDS:
            one = size if isinstance(size, int) else getattr(first, size)
            buffers[pointer] = ffi.new("char[]", getattr(first, count) * one or 1)
            setattr(full, count, getattr(first, count))
            setattr(full, pointer, int(ffi.cast("uintptr_t", buffers[pointer])))
            if not isinstance(size, int):
                setattr(full, size, one)
        info = _info(fd, full)
    finally:
        os.close(fd)
    facts: dict[str, Any] = {"id": info.id, "type": info.type, "btf_id": info.btf_id}
    facts["jited_prog_len"] = first.jited_prog_len  # told even where its address is hidden
    facts |= {"name": to_str(info.name), "load_time": info.load_time}
    facts |= {size: getattr(info, size) for *_, size in _FIELDS if isinstance(size, str)}
    for count, pointer, size in _FIELDS:
        one = size if isinstance(size, int) else getattr(info, size)
        is_told = getattr(info, pointer) != 0  # if it is 0, the kernel hides the data
        length = min(getattr(info, count), getattr(first, count)) * one
        facts[pointer] = bytes(ffi.buffer(buffers[pointer], length)) if is_told else b""
    return facts


def function_types(fd: int) -> list[int]:
    """Returns the ids of its functions' types in its BTF, in the order of their instructions.

    It is empty where the program was loaded without types. Raises OSError.
    """
    first = _info(fd, ffi.new("struct bpf_prog_info *"))
    count, size = int(first.nr_func_info), int(first.func_info_rec_size)
    if not count or size < _FUNCTION.size:
        return []
    buffer, again = ffi.new("char[]", count * size), ffi.new("struct bpf_prog_info *")
    again.nr_func_info, again.func_info_rec_size = count, size
    again.func_info = int(ffi.cast("uintptr_t", buffer))
    _info(fd, again)
    raw = bytes(ffi.buffer(buffer, count * size))
    return [_FUNCTION.unpack_from(raw, at)[1] for at in range(0, len(raw), size)]


def function_names(fd: int) -> list[str]:
    """Returns the names of its functions, in the order of their instructions.

    It is empty where the program was loaded without types. Raises OSError, which may be a `MapError`.
    """
    types = function_types(fd)
    if not types:
        return []
    btf = load_codecs(int(_info(fd, ffi.new("struct bpf_prog_info *")).btf_id)).btf
    return [btf.type(number).name for number in types]


def btf_bytes(number: int) -> bytes:
    """Returns the raw BTF with this id. Raises OSError if it is no longer loaded."""
    fd = int(lib.bpf_btf_get_fd_by_id(number))
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd))
    try:
        info, size = ffi.new("struct bpf_btf_info *"), ffi.new("uint32_t *")
        size[0] = ffi.sizeof("struct bpf_btf_info")
        _check(lib.bpf_obj_get_info_by_fd(fd, info, size))
        data = ffi.new("char[]", info.btf_size)
        again = ffi.new("struct bpf_btf_info *")
        again.btf, again.btf_size = int(ffi.cast("uintptr_t", data)), info.btf_size
        size[0] = ffi.sizeof("struct bpf_btf_info")
        _check(lib.bpf_obj_get_info_by_fd(fd, again, size))
        return bytes(ffi.buffer(data, info.btf_size))
    finally:
        os.close(fd)


def _info(fd: int, info: Any) -> Any:
    size = ffi.new("uint32_t *", ffi.sizeof("struct bpf_prog_info"))
    _check(lib.bpf_obj_get_info_by_fd(fd, info, size))
    return info


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
