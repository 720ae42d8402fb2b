"""Explains complaints that have numbers and names in them."""

from __future__ import annotations

import re

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.verifier.log import Rejection

_VALUE = re.compile(r"invalid access to map value, value_size=(\d+) off=(\d+) size=(\d+)")
_ARGUMENT = re.compile(r"^R\d type=(\w+) expected=(.*)", re.MULTILINE)
_RETURNED = re.compile(
    r"At program exit the register R0 .*should have been in (?:\[(-?\d+), (-?\d+)\]|\(0x0; 0x([137f]+)\))"
)
_SHORT = re.compile(r"invalid access to packet, off=(\d+) size=(\d+), R\d\(id=\d+,off=\d+,r=([1-9]\d*)\)")
_OTHER_MAP = re.compile(r"cannot pass map_type \d+ into func (bpf_\w+)")
_MEMORY = re.compile(r"invalid access to memory, mem_size=(\d+) off=(\d+) size=(\d+)")
# the map types that a helper takes, by the beginning of the helper's name
_MAP_TYPES = {
    "bpf_redirect_map": "DEVMAP, DEVMAP_HASH, CPUMAP or XSKMAP",
    "bpf_get_stackid": "STACK_TRACE",
    "bpf_perf_event": "PERF_EVENT_ARRAY",
    "bpf_skb_output": "PERF_EVENT_ARRAY",
    "bpf_xdp_output": "PERF_EVENT_ARRAY",
    "bpf_ringbuf": "RINGBUF",
    "bpf_user_ringbuf": "USER_RINGBUF",
    "bpf_sk_redirect_map": "SOCKMAP",
    "bpf_msg_redirect_map": "SOCKMAP",
    "bpf_sock_map": "SOCKMAP",
    "bpf_sk_redirect_hash": "SOCKHASH",
    "bpf_msg_redirect_hash": "SOCKHASH",
    "bpf_sock_hash": "SOCKHASH",
    "bpf_sk_select_reuseport": "REUSEPORT_SOCKARRAY, SOCKMAP or SOCKHASH",
    "bpf_sk_storage": "SK_STORAGE",
    "bpf_inode_storage": "INODE_STORAGE",
    "bpf_task_storage": "TASK_STORAGE",
    "bpf_cgrp_storage": "CGRP_STORAGE",
    "bpf_get_local_storage": "CGROUP_STORAGE",
    "bpf_skb_under_cgroup": "CGROUP_ARRAY",
    "bpf_current_task_under_cgroup": "CGROUP_ARRAY",
    "bpf_map_push_elem": "QUEUE, STACK or BLOOM_FILTER",
    "bpf_map_pop_elem": "QUEUE or STACK",
    "bpf_map_peek_elem": "QUEUE, STACK or BLOOM_FILTER",
    "bpf_tail_call": "PROG_ARRAY",
}


def advise_in_numbers(found: Rejection) -> Explanation | None:
    """Explains a complaint about the reach of an access, an argument or a return value; else None."""
    text = found.text
    if value := _VALUE.search(text):
        size, offset, length = map(int, value.groups())
        return _beyond_value(size, offset + length) if offset + length > size else None
    if argument := _ARGUMENT.search(text):
        return _argument(argument[1], re.split(r", *", argument[2].strip()))
    if returned := _RETURNED.search(text):
        first, last = (returned[1], returned[2]) if returned[2] else ("0", str(int(returned[3], 16)))
        span = first if first == last else f"{first} to {last}"
        allows = ": in a cgroup program 1 allows, and 0 refuses" if span == "0 to 1" else ""
        return Explanation(
            f"programs of this type return {span}, but this one returns another value",
            f"return {span}{allows}",
        )
    if other := _OTHER_MAP.search(text):
        return _other_map(other[1])
    if (memory := _MEMORY.search(text)) and not found.function:
        size, offset, length = map(int, memory.groups())
        return _beyond_memory(size, offset + length) if offset + length > size else None
    return None


def short_check(text: str) -> Explanation | None:
    """Explains an access to packet bytes beyond those that were compared with data_end; else None."""
    found = _SHORT.search(text)
    if found is None:
        return None
    offset, size, proven = map(int, found.groups())
    return Explanation(
        "the program touches packet bytes that it has not proven to be there: "
        f"it has proven {proven}, but goes on to byte {offset + size}",
        f"compare the end of the access with data_end: {offset + size} bytes after the same pointer",
    )


def _beyond_value(size: int, end: int) -> Explanation:
    return Explanation(
        f"the program can reach byte {end} of a map's value that has {size}",
        "bound the index, offset or length by the rest of the value, right before the access: "
        "if (i >= SIZE) return 0; or i &= SIZE - 1, with an unsigned type",
    )


def _beyond_memory(size: int, end: int) -> Explanation:
    return Explanation(
        f"the program can reach byte {end} of memory that has {size}",
        "reserve, or request, as much as is used: sizeof(struct …); bound an index before its use: "
        "if (i >= SIZE) return 0;",
    )


def _argument(given: str, wanted: list[str]) -> Explanation | None:
    if given.endswith("_or_null"):
        return None
    if wanted == ["ctx"]:
        return Explanation(
            "that argument has to be the program's own context, but the helper gets another value",
            "give it the parameter of the program, unchanged: ctx, skb",
        )
    if wanted == ["map_ptr"] and given.startswith("map_value"):
        return Explanation(
            "that argument has to be a map, but the helper gets a plain variable, not declared as a map",
            'put SEC(".maps") after the declaration: struct { … } name SEC(".maps");',
        )
    if wanted == ["map_ptr"]:
        return Explanation(
            "that argument has to be a map, but the helper gets another value", "give the map's address: &map"
        )
    if given == "ctx":
        return Explanation(
            "that argument has to be memory of the program, but the helper gets the context",
            "copy the fields that are needed into a variable, and give the variable's address: &value",
        )
    if given in ("scalar", "inv") and "ptr_" in wanted:
        return Explanation(
            "that argument has to be a kernel pointer known to the verifier, but the helper gets an address",
            "get it from bpf_get_current_task_btf(), instead of bpf_get_current_task(), or from an argument "
            "of a tp_btf, fentry or lsm program",
        )
    if given in ("scalar", "inv") and {"fp", "map_value"} & set(wanted):
        return Explanation(
            "that argument has to be a pointer, but the helper gets a number",
            "put the number into a variable, and give the variable's address: &key",
        )
    return None


def _other_map(helper: str) -> Explanation | None:
    fits = [start for start in _MAP_TYPES if helper.startswith(start)]
    if not fits:
        return None
    types = _MAP_TYPES[max(fits, key=len)]
    return Explanation(
        f"{helper}() does not take maps of this type",
        f"give it a map of another type: BPF_MAP_TYPE_{types}",
    )
