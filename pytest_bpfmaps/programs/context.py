"""Converts the context structs of programs between fields and bytes."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from pytest_bpfmaps.btf import BtfType, Codec, Codecs, Kind, Record
from pytest_bpfmaps.btf.absent_fields import without
from pytest_bpfmaps.btf.array_codecs import ArrayCodec
from pytest_bpfmaps.btf.codec import IntCodec
from pytest_bpfmaps.btf.field import Field
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.errors import MapTypeError
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.release import release

# From <linux/bpf.h>, where new fields come at the end. "@16" is a member of a union, at that offset.
_LAYOUTS = {
    "xdp_md": "u32 data, u32 data_end, u32 data_meta, u32 ingress_ifindex, u32 rx_queue_index, "
    "u32 egress_ifindex",
    "__sk_buff": "u32 len, u32 pkt_type, u32 mark, u32 queue_mapping, u32 protocol, u32 vlan_present, "
    "u32 vlan_tci, u32 vlan_proto, u32 priority, u32 ingress_ifindex, u32 ifindex, u32 tc_index, u32 cb[5], "
    "u32 hash, u32 tc_classid, u32 data, u32 data_end, u32 napi_id, u32 family, u32 remote_ip4, "
    "u32 local_ip4, u32 remote_ip6[4], u32 local_ip6[4], u32 remote_port, u32 local_port, u32 data_meta, "
    "u64 flow_keys, u64 tstamp, u32 wire_len, u32 gso_segs, u64 sk, u32 gso_size, u8 tstamp_type, "
    "u64 hwtstamp",
    "bpf_sk_lookup": "u64 cookie, u32 family, u32 protocol, u32 remote_ip4, u32 remote_ip6[4], "
    "u16 remote_port, u32 local_ip4, u32 local_ip6[4], u32 local_port, u32 ingress_ifindex",
    "bpf_flow_keys": "u16 nhoff, u16 thoff, u16 addr_proto, u8 is_frag, u8 is_first_frag, u8 is_encap, "
    "u8 ip_proto, u16 n_proto, u16 sport, u16 dport, "
    "u32 ipv4_src@16, u32 ipv4_dst@20, u32 ipv6_src[4]@16, u32 ipv6_dst[4]@32, u32 flags, u32 flow_label",
    "nf_hook_state": "u8 hook, u8 pf",
}
_OF_SKB = ("SCHED_CLS", "SCHED_ACT", "CGROUP_SKB", "SOCKET_FILTER", "LWT_IN", "LWT_OUT", "LWT_XMIT")
_STRUCTS: dict[int, str] = {
    ProgramType.XDP: "xdp_md",
    ProgramType.SK_LOOKUP: "bpf_sk_lookup",
    ProgramType.FLOW_DISSECTOR: "bpf_flow_keys",
    ProgramType.NETFILTER: "nf_hook_state",
    ProgramType.LWT_SEG6LOCAL: "__sk_buff",
    **{ProgramType[name]: "__sk_buff" for name in _OF_SKB},
}
# The fields that BPF_PROG_TEST_RUN writes back (net/bpf/test_run.c: convert_skb_to___skb,
# xdp_convert_buff_to_md). For other structs it writes back all fields.
_OF_SKB_AFTER = frozenset(
    ["mark", "priority", "ingress_ifindex", "ifindex", "cb", "tstamp", "wire_len", "gso_segs", "hwtstamp"]
)
_OF_XDP_AFTER = frozenset(("data", "data_end", "data_meta"))
_GIVEN = {"__sk_buff": _OF_SKB_AFTER, "xdp_md": _OF_XDP_AFTER}
# prefixes of the names of context structs; a context may also be a number or void
_CONTEXTS = (
    *("xdp_md", "__sk_buff", "sk_msg_md", "sk_reuseport_md", "bpf_sock", "bpf_sysctl", "bpf_cgroup_dev_ctx"),
    *("bpf_sk_lookup", "bpf_perf_event_data", "bpf_raw_tracepoint_args", "bpf_nf_ctx", "bpf_iter__"),
    *("pt_regs", "user_pt_regs", "trace_event_raw_"),
)
_INGRESS = slice(12, 16)  # of struct xdp_md
_INSTEAD = {"len": "; the length of the packet is len(result.data)"}
_FIELD = re.compile(r"u(\d+) (\w+)(?:\[(\d+)\])?(?:@(\d+))?")


def context_codec(type: ProgramType | int, name: str, codecs: Codecs | None) -> Codec | None:
    """Returns the codec of the context of program `name`; None for a type whose context is not a struct.

    If the program declares the struct itself, its declaration is used, because it may have newer fields.
    """
    if type in (ProgramType.RAW_TRACEPOINT, ProgramType.RAW_TRACEPOINT_WRITABLE):
        return None  # as many numbers as the tracepoint has arguments
    expected = _STRUCTS.get(type)
    declared = None if codecs is None else _declared(codecs, name)
    if declared is not None and (expected is None or declared.name == f"struct {expected}"):
        return declared
    return None if expected is None else _layout(expected)


def seen_context(type: ProgramType | int, name: str, codecs: Codecs | None) -> Codec | None:
    """Returns the codec of the context that program `name` gets. For some types, `run` takes another one."""
    if type == ProgramType.FLOW_DISSECTOR:
        return _layout("__sk_buff")
    return None if type == ProgramType.NETFILTER else context_codec(type, name, codecs)


def refused_field(complaint: str, instruction: str, type: ProgramType | int, codec: Codec | None) -> str:
    """Returns a sentence about the context field that a program may not use; empty if it is not known."""
    found = re.search(r"invalid bpf_context access off=(\d+) size=(\d+)", complaint)
    if found is None or not isinstance(codec, StructCodec):
        return ""
    at, size = int(found[1]), int(found[2])
    field = next((f for f in codec.fields if f.offset <= at < f.offset + f.codec.size), None)
    if field is None:
        return f"the program reaches outside of its context: {codec.name} has nothing at offset {at}"
    verb = "write" if instruction.startswith("*(") else "read"
    element = getattr(field.codec, "element", field.codec)
    part = "" if size == element.size else f" in {size} bytes, as it has {element.size}"
    return f"programs of type {type} may not {verb} the field {field.name!r} of {codec.name}{part}"


def encode_context(ctx: Any, codec: Codec | None, on: str) -> bytes:
    """Returns a context as bytes: from a mapping or record of its fields, from bytes, or 64-bit numbers.

    Raises `MapTypeError` or `MapValueError`.
    """
    if isinstance(ctx, bytes | bytearray | memoryview):
        return bytes(ctx)
    if codec is not None and isinstance(ctx, Mapping | Record | tuple | list):
        return codec.encode(ctx, f"the context of {on}")
    if isinstance(ctx, tuple | list) and all(isinstance(n, int) for n in ctx):
        return struct.pack(f"={len(ctx)}Q", *(n & (1 << 64) - 1 for n in ctx))
    raise MapTypeError(
        f"cannot run {on}",
        on=f"with the context {ctx!r}",
        why="the fields of its context are not known" if codec is None else f"it is no {codec.name}",
        fix="give bytes, or declare the program's parameter as the struct that it is"
        if codec is None
        else f"give bytes, or its fields: ctx={{{_first_field(codec)!r}: …}}",
    )


def _first_field(codec: Codec) -> str:
    return codec.fields[0].name if isinstance(codec, StructCodec) else "field"


def decode_context(raw: bytes, codec: Codec | None, type: ProgramType | int) -> Any:
    """Returns the fields of a context after a run; the bytes if the struct is not known.

    Fields that the kernel does not give back, and fields that it does not have, raise `NoValueError`.
    """
    if not isinstance(codec, StructCodec):
        return raw if codec is None else codec.decode(raw.ljust(codec.size, b"\0"))
    given = _GIVEN.get(_STRUCTS.get(type, ""))
    if given is _OF_XDP_AFTER and any(raw[_INGRESS]):  # with an interface, the kernel also sets these two
        given |= {"ingress_ifindex", "rx_queue_index"}
    names = frozenset(
        f.name
        for f in codec.fields
        if f.offset + f.codec.size > len(raw) or (given is not None and f.name not in given)
    )
    return _partly(codec, names, len(raw)).decode(raw.ljust(codec.size, b"\0"))


@lru_cache(maxsize=64)
def _partly(codec: StructCodec, names: frozenset[str], size: int) -> StructCodec:
    """Returns the codec without the fields `names`, which this kernel does not have, or does not set."""
    if not names:
        return codec
    reasons = {}
    for field in codec.fields:
        if field.offset + field.codec.size > size:
            why, fix = f"Linux {release()} has {size} bytes of it", "run it on a newer kernel"
        else:
            why = "the kernel does not give it back after a run"
            fix = "let the program copy it to a global variable" + _INSTEAD.get(field.name, "")
        reasons[field.name] = (why, fix)
    return without(codec, {n: reasons[n] for n in names}, f"the context ({codec.name})")


def return_codec(name: str, codecs: Codecs | None) -> Codec | None:
    """Returns the codec of the return value of program `name`; None if it is not known."""
    prototype = None if codecs is None else _prototype(codecs, name)
    if codecs is None or prototype is None:
        return None
    returned = codecs.btf.resolve(prototype.size_or_type)
    return codecs.get(returned.id) if returned.kind in (Kind.INT, Kind.ENUM, Kind.ENUM64) else None


def may_be_program(name: str, codecs: Codecs | None) -> bool:
    """Returns whether a function's only parameter is a context, as a program's is.

    True if its type is unknown.
    """
    prototype = None if codecs is None else _prototype(codecs, name)
    if codecs is None or prototype is None:
        return True
    parameters = [codecs.btf.resolve(type_id) for type_id in prototype.parameters() if type_id]
    if [p.kind for p in parameters] != [Kind.PTR]:
        return False
    pointed = parameters[0].size_or_type and codecs.btf.resolve(parameters[0].size_or_type)
    return not pointed or pointed.kind is Kind.INT or pointed.name.startswith(_CONTEXTS)


def _prototype(codecs: Codecs, name: str) -> BtfType | None:
    function = codecs.btf.find(name, Kind.FUNC)
    return None if function is None else function.target


def _declared(codecs: Codecs, name: str) -> Codec | None:
    """Returns the codec of the struct that the program's first parameter points to."""
    btf = codecs.btf
    prototype = _prototype(codecs, name)
    parameters = () if prototype is None else prototype.parameters()
    if not parameters:
        return None
    parameter = btf.resolve(parameters[0])
    if parameter.kind is not Kind.PTR:
        return None
    pointed = btf.resolve(parameter.size_or_type)
    return codecs.get(pointed.id) if pointed.kind is Kind.STRUCT and pointed.vlen else None


@cache
def _layout(name: str) -> StructCodec:
    fields: list[Field] = []
    end = widest = 0
    for bits, field, count, place in _FIELD.findall(_LAYOUTS[name]):
        element = IntCodec(f"__u{bits}", int(bits) // 8, signed=False)
        codec = ArrayCodec(f"__u{bits}[{count}]", element, int(count)) if count else element
        at = int(place) if place else end + -end % element.size
        # the addresses are in one union: those of IPv4, or those of IPv6, which are arrays
        fields.append(Field(field, codec, at, ((1, bool(count)),) if place else ()))
        end = max(end, at + codec.size)
        widest = max(widest, element.size)
    return StructCodec(f"struct {name}", end + -end % widest, fields)
