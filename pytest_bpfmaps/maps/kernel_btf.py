"""BTF to codecs: from an object's own bytes, or from the kernel for a map that somebody else loaded."""

from __future__ import annotations

from functools import lru_cache

from ..btf import Btf, Codecs
from ..errors import MapError
from ..libbpf import check_pointer, ffi, lib


@lru_cache(maxsize=64)
def parse_codecs(raw: bytes) -> Codecs:
    """Codecs for a BTF section; the same bytes are parsed once."""
    return Codecs(Btf(raw))


def raw_btf(handle: object) -> bytes:
    """The bytes of a ``struct btf *``."""
    size = ffi.new("uint32_t *")
    data = check_pointer(lib.btf__raw_data(handle, size), MapError, "cannot read the BTF")
    return bytes(ffi.buffer(data, size[0]))


def load_codecs(btf_id: int) -> Codecs:
    """Codecs for BTF that the kernel holds (``BPF_BTF_GET_FD_BY_ID``, Linux 4.18)."""
    handle = check_pointer(
        lib.btf__load_from_kernel_by_id(btf_id), MapError, "cannot read the types of", on=f"BTF id {btf_id}"
    )
    try:
        return parse_codecs(raw_btf(handle))
    finally:
        lib.btf__free(handle)
