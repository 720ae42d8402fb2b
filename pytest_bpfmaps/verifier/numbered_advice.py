"""Explains complaints that have numbers and names in them."""

from __future__ import annotations

import re

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.verifier.log import Rejection

_NOT_CREATED = re.compile(r"BPF map '([^']+)' is referenced but wasn't created")
_VALUE = re.compile(r"invalid access to map value, value_size=(\d+) off=(\d+) size=(\d+)")
_ARGUMENT = re.compile(r"^R\d type=(\w+) expected=(.*)", re.MULTILINE)
_RETURNED = re.compile(
    r"At program exit the register R0 .*should have been in (?:\[(-?\d+), (-?\d+)\]|\(0x0; 0x([0137f]+)\))"
)
_SHORT = re.compile(r"invalid access to packet, off=(\d+) size=(\d+), R\d\(id=\d+,off=\d+,r=([1-9]\d*)\)")
_OTHER_MAP = re.compile(r"cannot pass map_type (\d+) into func (bpf_\w+)")
_DISABLED = re.compile(r"points to disabled hook bpf_lsm_(\w+)")
_BY_KEY = re.compile(r"bpf_map_(?:lookup|update|delete|lookup_percpu)_elem")
_POINTER = re.compile(r"^(R\d+) (?:min|max) value is outside", re.MULTILINE)
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
_SOCKETS = "programs call bpf_sk_redirect_map(), bpf_msg_redirect_map() or bpf_sock_map_update()"
_REDIRECTS = "programs only call bpf_redirect_map(), and a test fills it"
_OF_INNER = (
    "programs only look an inner map up, and change that: "
    "inner = bpf_map_lookup_elem(&outer, &key); if (inner) bpf_map_update_elem(inner, …); a test fills the "
    "outer map"
)
_OF_CGROUP = "programs call bpf_get_local_storage(&map, 0)"
# what programs do with maps whose elements they can't look up, update or delete, by the map's type
_ITS_HELPERS = {
    3: ("program array", "programs only jump into it, with bpf_tail_call(), and a test fills it"),
    4: ("perf event array", "programs call bpf_perf_event_output() or bpf_perf_event_read_value()"),
    7: ("map of stack traces", "bpf_get_stackid() fills it, and a test reads it"),
    8: ("cgroup array", "programs call bpf_current_task_under_cgroup() or bpf_skb_under_cgroup()"),
    **dict.fromkeys((14, 16, 17, 25), ("map of devices, CPUs or AF_XDP sockets", _REDIRECTS)),
    **dict.fromkeys((12, 13), ("map of maps", _OF_INNER)),
    15: ("sockmap", _SOCKETS),
    18: ("sockhash", _SOCKETS.replace("_map", "_hash")),
    **dict.fromkeys((19, 21), ("cgroup storage", _OF_CGROUP)),
    20: ("array of sockets", "programs call bpf_sk_select_reuseport(), and a test fills it"),
    24: ("socket storage", "programs call bpf_sk_storage_get() and bpf_sk_storage_delete()"),
    28: ("inode storage", "programs call bpf_inode_storage_get() and bpf_inode_storage_delete()"),
    29: ("task storage", "programs call bpf_task_storage_get() and bpf_task_storage_delete()"),
    32: ("cgroup storage", "programs call bpf_cgrp_storage_get() and bpf_cgrp_storage_delete()"),
}


def advise_in_numbers(found: Rejection) -> Explanation | None:
    """Explains a complaint about the reach of an access, an argument or a return value; else None."""
    text = found.text
    if absent := _NOT_CREATED.search(text):
        return Explanation(
            f"the program uses the map {absent[1]!r}, which the load leaves out (autocreate is False)",
            f"guard the use by a constant, const volatile bool with_{absent[1]};, which the load sets to "
            'False; or name the programs to load, without this one: bpf.load(…, programs=["NAME"])',
        )
    if value := _VALUE.search(text):
        size, offset, length = map(int, value.groups())
        return _beyond_value(found, size, offset + length) if offset + length > size else None
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
        return _other_map(int(other[1]), other[2])
    if hook := _DISABLED.search(text):
        return Explanation(
            f"the kernel calls no BPF program at the hook {hook[1]}, because it returns more than a refusal",
            f'watch it with SEC("fentry/security_{hook[1]}")',
        )
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


def _beyond_value(found: Rejection, size: int, end: int) -> Explanation:
    why = f"the program can reach byte {end} of a map's value that has {size}"
    at = _POINTER.search(found.text)
    state = found.registers.get(at[1], "") if at else ""
    if found.instruction.startswith("call bpf_") and re.search(r"max|var_off", state):
        return Explanation(
            f"{why}: the verifier adds the largest offset and the largest length",
            "bound both by constants whose sum fits, in 64 bits, and don't calculate one from the other: "
            f"__s64 offset; if (offset < 0 || offset > {size // 2}) return 0; and a length of at most "
            f"{size - size // 2}",
        )
    return Explanation(
        why,
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
    if "dynptr_ptr" in wanted and given != "fp":
        return Explanation(
            "that argument has to be a dynptr on the stack, but the helper gets other memory",
            "declare it in the function: struct bpf_dynptr ptr; and give its address, &ptr",
        )
    if wanted == ["map_ptr"] and given.startswith("map_value"):
        return Explanation(
            "that argument has to be a map, but the helper gets a plain variable, not declared as a map",
            'put SEC(".maps") after the declaration: struct { … } name SEC(".maps");',
        )
    if wanted == ["map_ptr"]:
        several = (
            "; choose between several maps by if or switch, or put them into a map of type "
            "BPF_MAP_TYPE_ARRAY_OF_MAPS, because the verifier does not follow addresses in an array"
        )
        return Explanation(
            "that argument has to be a map, but the helper gets another value",
            f"give the map's address: &map{several if given in ('scalar', 'inv') else ''}",
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


def _other_map(map_type: int, helper: str) -> Explanation | None:
    if helper == "bpf_map_lookup_percpu_elem":
        return Explanation(
            f"{helper}() takes only maps with a value for each CPU",
            "give it a map of type BPF_MAP_TYPE_PERCPU_ARRAY, PERCPU_HASH or LRU_PERCPU_HASH; for other "
            "maps, call bpf_map_lookup_elem()",
        )
    if _BY_KEY.fullmatch(helper) and map_type in _ITS_HELPERS:
        what, way = _ITS_HELPERS[map_type]
        return Explanation(f"{helper}() does not take a {what}", way)
    fits = [start for start in _MAP_TYPES if helper.startswith(start)]
    if not fits:
        return None
    types = _MAP_TYPES[max(fits, key=len)]
    return Explanation(
        f"{helper}() does not take maps of this type",
        f"give it a map of another type: BPF_MAP_TYPE_{types}",
    )
