"""Makes codecs of BTF: of an object's own bytes, or of the kernel's BTF for a map that is already loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from pytest_bpfmaps.btf import Btf, BtfType, Codecs, Kind
from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.libbpf import check_pointer, ffi, lib, to_str
from pytest_bpfmaps.libbpf.syscalls import address


@lru_cache(maxsize=64)
def parse_codecs(raw: bytes) -> Codecs:
    """Returns codecs for a BTF section; the same bytes are parsed once."""
    return Codecs(Btf(raw))


def raw_btf(handle: object) -> bytes:
    """Returns the bytes of a ``struct btf *``."""
    size = ffi.new("uint32_t *")
    data = check_pointer(lib.btf__raw_data(handle, size), MapError, "cannot read the BTF")
    return bytes(ffi.buffer(data, size[0]))


def keeps_raw_btf(handle: Any) -> bool:
    """Returns whether a ``struct btf *`` keeps a copy of what `raw_btf` read, and would load that copy.

    It does if libbpf has added types, for example for kfuncs. When libbpf loads the object, it changes the
    types in place (a ``__hidden`` function becomes static), but not in the copy.
    """
    first = ffi.NULL if handle == ffi.NULL else lib.btf__type_by_id(handle, 1)
    if first == ffi.NULL:
        return False
    size = ffi.new("uint32_t *")
    start = address(lib.btf__raw_data(handle, size))
    return not start <= address(first) < start + size[0]


def load_codecs(btf_id: int) -> Codecs:
    """Returns codecs for BTF in the kernel, by its id (``BPF_BTF_GET_FD_BY_ID``, Linux 4.18)."""
    handle = check_pointer(
        lib.btf__load_from_kernel_by_id(btf_id), MapError, "cannot read the types of", on=f"BTF id {btf_id}"
    )
    try:
        return parse_codecs(raw_btf(handle))
    finally:
        lib.btf__free(handle)


def kernel_btf_name(btf_id: int) -> str:
    """Returns ``vmlinux`` or a module's name for BTF of the kernel; an empty text for any other id.

    Linux 5.11; older kernels tell no name, and have only vmlinux.
    """
    fd = int(lib.bpf_btf_get_fd_by_id(btf_id))
    if fd < 0:
        return ""
    try:
        name = ffi.new("char[]", 64)
        info, size = ffi.new("struct bpf_btf_info *"), ffi.new("uint32_t *")
        info.name, info.name_len = address(name), 64
        size[0] = ffi.sizeof("struct bpf_btf_info")
        result = lib.bpf_obj_get_info_by_fd(fd, info, size)
        return to_str(name) if result == 0 and info.kernel_btf else ""
    finally:
        os.close(fd)


@cache
def vmlinux_codecs() -> Codecs:
    """Returns codecs for the running kernel's own types; they are kept until the process ends."""
    return Codecs(_KernelBtf())


def struct_members(name: str) -> set[str] | None:
    """Returns the member names of a struct of the running kernel; None without such a struct or BTF."""
    try:
        btf = vmlinux_codecs().btf
    except MapError:
        return None
    assert isinstance(btf, _KernelBtf)
    found = btf.struct(name)
    return {m.name for m in found.members()} if found else None


class _KernelBtf(Btf):
    """The kernel's BTF, with more than 100,000 types: libbpf finds each, and Python decodes only a few."""

    def __init__(self) -> None:
        self._handle = check_pointer(
            lib.btf__load_vmlinux_btf(),
            MapError,
            "cannot read the types of this kernel",
            on="/sys/kernel/btf/vmlinux",
            fix="boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        )
        super().__init__(raw_btf(self._handle))

    def _index(self, start: int, length: int) -> Any:
        return _Offsets(self._handle)

    def struct(self, name: str) -> BtfType | None:
        """Returns the struct of that name; None if there is none."""
        type_id = lib.btf__find_by_name_kind(self._handle, name.encode(), Kind.STRUCT)
        return self.type(type_id) if type_id > 0 else None


class _Offsets(Sequence[int]):
    """The offset of each type in the BTF of a ``struct btf *``."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        start = lib.btf__raw_data(handle, ffi.new("uint32_t *"))
        self._start = int(ffi.cast("uintptr_t", start))

    def __len__(self) -> int:
        return int(lib.btf__type_cnt(self._handle))

    def __getitem__(self, type_id: Any) -> Any:
        return int(ffi.cast("uintptr_t", lib.btf__type_by_id(self._handle, type_id))) - self._start
