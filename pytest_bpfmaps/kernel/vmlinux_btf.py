"""Looks up the kernel's own types with libbpf, and types in the BTF of any kernel."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pytest_bpfmaps.elf.name_search import Names
from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.kernel.mounts import has_sysfs, how_to_mount
from pytest_bpfmaps.libbpf import check_pointer, ffi, lib, to_str

# BTF kinds: the kernel's Documentation/bpf/btf.rst
STRUCT, UNION, ENUM, TYPEDEF, FUNC, ENUM64 = 4, 5, 6, 8, 12, 19
_POINTER, _PROTOTYPE = 2, 13
_ENUM, _DECL_TAG = 6, 17
_FOLDER = Path("/sys/kernel/btf")
PATH = str(_FOLDER / "vmlinux")


class NoTypesError(UnsupportedError):
    """This kernel has no BTF, or does not show it."""


@cache
def vmlinux_btf() -> object:
    """Returns the kernel's own BTF; it is kept until the process ends.

    Raises `NoTypesError` if the kernel has none (``CONFIG_DEBUG_INFO_BTF``, Linux 5.2).
    """
    return check_pointer(
        lib.btf__load_vmlinux_btf(),
        NoTypesError,
        "cannot read the types of this kernel",
        on=PATH,
        **_why_missing(),
    )


def _why_missing() -> dict[str, str]:
    if not has_sysfs():
        return {"why": "sysfs is not mounted", "fix": how_to_mount("sysfs")}
    fix = "boot one with CONFIG_DEBUG_INFO_BTF=y, or run in a virtual machine: pytest --bpf-kernel=6.1"
    return {"fix": fix} if os.path.exists(PATH) else {"why": "there is no such file", "fix": fix}


def type_id(btf: object, name: str, kind: int) -> int:
    """Returns the id of a type by its name and BTF kind; 0 if there is none."""
    return max(int(lib.btf__find_by_name_kind(btf, name.encode(), kind)), 0)


@cache
def _has_type(btf: object, name: str, kind: int) -> bool:
    """Returns whether a BTF that is kept until the process ends has a type.

    Libbpf compares each of its names.
    """
    return type_id(btf, name, kind) > 0


@cache
def enumerators(btf: object, enum: str) -> dict[str, int]:
    """Returns names and values of an enum of a kernel; an empty dict if it has no such enum.

    The caller must keep the BTF until the process ends.
    """
    number = type_id(btf, enum, _ENUM)
    if not number:
        return {}
    words = ffi.cast("uint32_t *", lib.btf__type_by_id(btf, number))
    return {
        to_str(lib.btf__name_by_offset(btf, words[3 + 2 * i])): int(words[4 + 2 * i])
        for i in range(words[1] & 0xFFFF)
    }


@cache
def program_types(btf: object) -> frozenset[str]:
    """Returns the program types that a kernel was built with, such as ``BPF_PROG_TYPE_XDP``.

    The verifier finds the types of contexts in ``struct bpf_ctx_convert``, which has two members for each
    type that the configuration includes (Linux 5.5, commit 91cc1a99740e). Returns an empty set if there is no
    such struct.
    """
    number = type_id(btf, "bpf_ctx_convert", STRUCT)
    if not number:
        return frozenset()
    return frozenset(n.removesuffix("_prog") for n in _members(btf, number) if n.endswith("_prog"))


def marked_kfunc(btf: object, name: str) -> bool | None:
    """Returns whether the BTF of a kernel marks a function as a kfunc; None if it marks no function at all.

    The mark is a declaration tag ``bpf_kfunc``, from pahole 1.26 and Linux 6.9 on (commit 6e10b6350a86).
    """
    raw, start, end = _strings(btf)
    text = raw.find(b"\0bpf_kfunc\0", start, end) + 1 - start
    if text <= 0:
        return None
    tag = struct.pack("=II", text, _DECL_TAG << 24)
    if raw.find(tag, 0, start) < 0:
        return None
    number = type_id(btf, name, FUNC)
    return number > 0 and raw.find(tag + struct.pack("=I", number), 0, start) >= 0


def _strings(btf: object) -> tuple[bytes, int, int]:
    """Returns the raw BTF of a kernel, and the begin and end of the names of types in it."""
    raw = _raw(btf)
    header, strings, size = (struct.unpack_from("=I", raw, at)[0] for at in (4, 16, 20))
    return raw, header + strings, header + strings + size


class TypeNames(Names):
    """The names of a kernel's types of one kind; the kind of a name is checked when it is looked up."""

    def __init__(self, btf: object, kind: int) -> None:
        super().__init__(_string_text(btf), b"\0", f"bpftool btf dump file {PATH}")
        self._btf = btf
        self._kind = kind

    def __contains__(self, name: str) -> bool:
        return _has_type(self._btf, name, self._kind)


def type_names(kind: int) -> Names:
    """Returns the names of the kernel's types of a BTF kind; empty if it has no BTF."""
    try:
        return TypeNames(vmlinux_btf(), kind)
    except NoTypesError:
        return Names(b"")


@cache
def _string_text(btf: object) -> bytes:
    raw, start, end = _strings(btf)
    return raw[start:end]


@cache
def _raw(btf: object) -> bytes:
    size = ffi.new("uint32_t *")
    return bytes(ffi.buffer(lib.btf__raw_data(btf, size), size[0]))


def member_index(btf: object, name: str, member: str) -> int | None:
    """Returns the index of a member in a struct of a kernel; None if the struct or member is missing."""
    number = type_id(btf, name, STRUCT)
    names = _members(btf, number) if number else []
    return names.index(member) if member in names else None


def _members(btf: object, number: int) -> list[str]:
    words = ffi.cast("uint32_t *", lib.btf__type_by_id(btf, number))
    return [to_str(lib.btf__name_by_offset(btf, words[3 + 3 * i])) for i in range(words[1] & 0xFFFF)]


def has_type(name: str, kind: int) -> bool:
    """Returns whether the kernel or a loaded module has a type of that name and BTF kind."""
    if type_id(vmlinux_btf(), name, kind):
        return True
    for _, fd in in_modules(name, kind):
        os.close(fd)
        return True
    return False


def owner_has_type(owner: str, name: str, kind: int) -> bool:
    """Returns whether an owner, ``vmlinux`` or a module, has a type of that name and BTF kind."""
    if owner == "vmlinux":
        return type_id(vmlinux_btf(), name, kind) > 0
    for _, fd in in_modules(name, kind, owner):
        os.close(fd)
        return True
    return False


def raw_tracepoint_arguments(name: str) -> int | None:
    """Returns how many arguments a tracepoint of the kernel itself has; None if it does not exist.

    Raises `NoTypesError`.
    """
    btf = vmlinux_btf()
    number = type_id(btf, f"btf_trace_{name}", TYPEDEF)
    kind = 0
    while number and kind != _PROTOTYPE:
        words = ffi.cast("uint32_t *", lib.btf__type_by_id(btf, number))
        kind, number = words[1] >> 24 & 0x1F, words[2]
        if kind == _PROTOTYPE:
            return int(words[1] & 0xFFFF) - 1  # programs do not get the first argument
        if kind not in (TYPEDEF, _POINTER):
            return None
    return None


def arguments_of(number: int) -> int:
    """Returns how many arguments a function of the kernel has, by the id of its type.

    Helpers have five, whatever their documentation says: ``BPF_CALL_3`` adds two.
    """
    btf = vmlinux_btf()
    function = ffi.cast("uint32_t *", lib.btf__type_by_id(btf, number))
    prototype = ffi.cast("uint32_t *", lib.btf__type_by_id(btf, function[2]))
    return int(prototype[1] & 0xFFFF)


def modules_have_types() -> bool:
    """Returns whether a loaded module has BTF (Linux 5.11), by which programs can attach to its functions."""
    return any(path.name != "vmlinux" for path in _FOLDER.glob("*"))


def names_in_modules(name: str) -> list[str]:
    """Returns the functions of loaded modules with BTF whose names are close to `name`."""
    raw = b"".join(p.read_bytes() for p in _FOLDER.glob("*") if p.name != "vmlinux")
    return [near for near in Names(raw, b"\0").near(name) if has_type(near, FUNC)]


def in_modules(name: str, kind: int, module: str = "") -> Iterator[tuple[int, int]]:
    """Yields (id of a type, descriptor of the BTF) for each loaded module that has the type.

    With `module`, only that one counts. The caller closes the descriptors. Modules have BTF from Linux
    5.11 on, commit 36e68442d1af.
    """
    for path in _FOLDER.iterdir() if _FOLDER.is_dir() else ():
        if path.name == "vmlinux" or module not in ("", path.name):
            continue
        if b"\0%s\0" % name.encode() not in path.read_bytes():
            continue
        btf = lib.btf__parse_raw_split(os.fsencode(path), vmlinux_btf())
        if btf == ffi.NULL:
            continue
        number = type_id(btf, name, kind)
        lib.btf__free(btf)
        fd = _descriptor(path.name) if number else -1
        if fd >= 0:
            yield number, fd


def _descriptor(module: str) -> int:
    """Returns a descriptor of the BTF of a module; -1 if the module is no longer loaded."""
    number, info = ffi.new("uint32_t *"), ffi.new("struct bpf_btf_info *")
    name, size = ffi.new("char[]", 64), ffi.new("uint32_t *")
    while lib.bpf_btf_get_next_id(number[0], number) == 0:
        fd = int(lib.bpf_btf_get_fd_by_id(number[0]))
        if fd < 0:
            continue
        ffi.memmove(info, bytes(ffi.sizeof("struct bpf_btf_info")), ffi.sizeof("struct bpf_btf_info"))
        info.name, info.name_len, size[0] = int(ffi.cast("uintptr_t", name)), 64, ffi.sizeof(info[0])
        if lib.bpf_obj_get_info_by_fd(fd, info, size) == 0 and ffi.string(name).decode() == module:
            return fd
        os.close(fd)
    return -1
