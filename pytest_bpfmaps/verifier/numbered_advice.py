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
# what a helper's map is of, by the start of the helper's name
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
    """How far an access reaches, what an argument is, what may be returned; None for another complaint."""
    text = found.text
    if value := _VALUE.search(text):
        size, offset, length = map(int, value.groups())
        return _beyond_value(size, offset + length) if offset + length > size else None
    if argument := _ARGUMENT.search(text):
        return _argument(argument[1], re.split(r", *", argument[2].strip()))
    if returned := _RETURNED.search(text):
        first, last = (returned[1], returned[2]) if returned[2] else ("0", str(int(returned[3], 16)))
        span = first if first == last else f"{first} to {last}"
        allows = ": of a cgroup's program 1 allows, and 0 refuses" if span == "0 to 1" else ""
        return Explanation(
            f"programs of this type return {span}, and this one returns something else",
            f"return {span}{allows}",
        )
    if other := _OTHER_MAP.search(text):
        return _other_map(other[1])
    if (memory := _MEMORY.search(text)) and not found.function:
        size, offset, length = map(int, memory.groups())
        return _beyond_memory(size, offset + length) if offset + length > size else None
    return None


def short_check(text: str) -> Explanation | None:
    """For a packet's byte behind those that were compared with data_end; None for another complaint."""
    found = _SHORT.search(text)
    if found is None:
        return None
    offset, size, proven = map(int, found.groups())
    return Explanation(
        "the program touches packet bytes that it has not proven to be there: "
        f"{proven} are, and it goes on to byte {offset + size}",
        f"compare the end of what is touched with data_end, {offset + size} bytes from the same pointer on",
    )


def _beyond_value(size: int, end: int) -> Explanation:
    return Explanation(
        f"the program can reach to byte {end} of a map's value that has {size}",
        "bound the index, offset or length by what is left of the value, right before the access: "
        "if (i >= SIZE) return 0; or i &= SIZE - 1, with an unsigned type",
    )


def _beyond_memory(size: int, end: int) -> Explanation:
    return Explanation(
        f"the program can reach to byte {end} of memory that has {size}",
        "reserve, or ask for, as much as is used: sizeof(struct …); an index is to be bounded before: "
        "if (i >= SIZE) return 0;",
    )


def _argument(given: str, wanted: list[str]) -> Explanation | None:
    if given.endswith("_or_null"):
        return None
    if wanted == ["ctx"]:
        return Explanation(
            "the helper wants the program's own context there, and gets something else",
            "give it the parameter of the program as it is: ctx, skb",
        )
    if wanted == ["map_ptr"] and given.startswith("map_value"):
        return Explanation(
            "the helper wants a map there, and gets a plain variable: its declaration is no map's",
            'put SEC(".maps") behind the declaration: struct { … } name SEC(".maps");',
        )
    if wanted == ["map_ptr"]:
        return Explanation(
            "the helper wants a map there, and gets something else", "give the map's address: &map"
        )
    if given in ("scalar", "inv") and "ptr_" in wanted:
        return Explanation(
            "the helper wants a pointer to the kernel's struct that the verifier knows, and gets an address",
            "take it from bpf_get_current_task_btf(), instead of bpf_get_current_task(), or from an argument "
            "of a tp_btf, fentry or lsm program",
        )
    if given in ("scalar", "inv") and {"fp", "map_value"} & set(wanted):
        return Explanation(
            "the helper wants a pointer there, and gets a number",
            "put the number into a variable, and give the variable's address: &key",
        )
    return None


def _other_map(helper: str) -> Explanation | None:
    fits = [start for start in _MAP_TYPES if helper.startswith(start)]
    if not fits:
        return None
    types = _MAP_TYPES[max(fits, key=len)]
    return Explanation(
        f"{helper}() is not for maps of this type",
        f"give it a map of another type: BPF_MAP_TYPE_{types}",
    )
