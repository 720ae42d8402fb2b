"""Reads the target of a tracing link from ``struct bpf_link_info``."""

from __future__ import annotations

import struct
from typing import Any

from pytest_bpfmaps.attach.link_types import LinkType, attach_type_name
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.libbpf.syscalls import address

_UNION = 16  # offset of the union, which follows type, id and prog_id
_SIZE = 128
_TEXT = 4096  # PATH_MAX: the kernel refuses a path that does not fit
_PERF_KINDS = ("unspec", "uprobe", "uretprobe", "kprobe", "kretprobe", "tracepoint", "event")
_ADDRESS_AT = {  # offsets in the union: of the address of a buffer for a name, and of its length
    LinkType.RAW_TRACEPOINT: (0, 8),
    LinkType.ITER: (0, 8),
    LinkType.UPROBE_MULTI: (0, 32),
}


def watched_at(fd: int, kind: LinkType | int) -> dict[str, Any]:
    """Returns the target of the link with that descriptor; empty if this kernel does not show it.

    The keys depend on the link's type: ``tracepoint`` (Linux 5.8), ``iterator``, ``attach_type``, ``map_id``
    for struct_ops; ``event`` and ``function``, ``tracepoint`` or ``path`` with ``offset`` for perf events
    (Linux 6.6, commit 1b715e1b0ec5); ``count`` for links to many functions (6.6, for uprobes 6.8).
    """
    if kind == LinkType.TRACING:
        attach_type, object_id, type_id = struct.unpack_from("=III", _read(fd), 0)
        return {"attach_type": attach_type_name(attach_type), "object_id": object_id, "type_id": type_id}
    if kind == LinkType.STRUCT_OPS:
        return {"map_id": struct.unpack_from("=I", _read(fd))[0]}
    if kind == LinkType.KPROBE_MULTI:
        return {"count": struct.unpack_from("=I", _read(fd), 8)[0]}
    if kind == LinkType.PERF_EVENT:
        return _perf_event(fd)
    if kind in _ADDRESS_AT:
        raw, text = _read_text(fd, *_ADDRESS_AT[LinkType(kind)])
        if kind == LinkType.RAW_TRACEPOINT:
            return {"tracepoint": text}
        if kind == LinkType.UPROBE_MULTI:
            return {"path": text, "count": struct.unpack_from("=I", raw, 36)[0]}
        map_id = struct.unpack_from("=I", raw, 12)[0]
        return {"iterator": text, **({"map_id": map_id} if "map" in text and map_id else {})}
    return {}


def _perf_event(fd: int) -> dict[str, Any]:
    number = struct.unpack_from("=I", _read(fd))[0]
    kind = _PERF_KINDS[number] if number < len(_PERF_KINDS) else str(number)
    if kind == "unspec":
        return {}
    if kind == "event":
        raw = _read(fd)
        config, type = struct.unpack_from("=QI", raw, 8)
        return {"event": kind, "type": type, "config": config}
    raw, text = _read_text(fd, 8, 16)
    if kind == "tracepoint":
        return {"event": kind, "tracepoint": text}
    return {
        "event": kind,
        "function" if "kr" in kind or "kp" in kind else "path": text,
        "offset": struct.unpack_from("=I", raw, 20)[0],
    }


def _read(fd: int, given: bytes = b"") -> bytes:
    """Returns the union after a query that begins with `given` in it; zeros if the kernel refuses it."""
    info = ffi.new("char[]", (b"\0" * _UNION + given).ljust(_SIZE, b"\0"))
    size = ffi.new("uint32_t *", _SIZE)
    if lib.bpf_obj_get_info_by_fd(fd, info, size) < 0:
        return bytes(_SIZE)
    return bytes(ffi.buffer(info, _SIZE))[_UNION:]


def _read_text(fd: int, address_at: int, length_at: int) -> tuple[bytes, str]:
    """Returns the union, and the text that the kernel writes into the buffer that the query names."""
    text = ffi.new("char[]", _TEXT)
    given = bytearray(_SIZE - _UNION)
    struct.pack_into("=Q", given, address_at, address(text))
    struct.pack_into("=I", given, length_at, _TEXT)
    if address_at:  # the second query must have the kind of perf event that the first one returned
        given[0:4] = _read(fd)[0:4]
    return _read(fd, bytes(given)), ffi.string(text).decode(errors="replace")
