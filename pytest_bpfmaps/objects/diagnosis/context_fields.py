"""Advises what to do about a field of the context that a program may not read or write."""

from __future__ import annotations

import re

from pytest_bpfmaps.kernel.bpf_types import ProgramType

_ROOM = (
    "bpf_skb_change_head() makes room in front of the packet, and bpf_skb_adjust_room() behind its Ethernet "
    "header"
)
_WRITES = {
    ("__sk_buff", "len"): "bpf_skb_change_tail() makes a packet longer or shorter",
    ("__sk_buff", "data"): _ROOM,
    ("__sk_buff", "data_end"): "bpf_skb_change_tail() makes a packet longer or shorter",
    ("__sk_buff", "protocol"): "bpf_skb_change_proto() changes it between IPv4 and IPv6",
    ("__sk_buff", "pkt_type"): "bpf_skb_change_type() changes it, in a program of tc",
    ("__sk_buff", "vlan_tci"): "bpf_skb_vlan_push() and bpf_skb_vlan_pop() change it",
    ("__sk_buff", "vlan_proto"): "bpf_skb_vlan_push() and bpf_skb_vlan_pop() change it",
    ("__sk_buff", "hash"): "bpf_set_hash() sets it, in a program of tc",
    ("xdp_md", "data"): "bpf_xdp_adjust_head() moves it; the bytes are changed through the pointer itself",
    ("xdp_md", "data_end"): "bpf_xdp_adjust_tail() moves it",
    ("xdp_md", "data_meta"): "bpf_xdp_adjust_meta() moves it",
}
_REGISTERS = (
    "a kprobe sees a copy of the registers; bpf_override_return() replaces the result of a function of "
    "/sys/kernel/debug/error_injection/list"
)
_DATA = "use bpf_skb_load_bytes(), or another type of program"
_FAMILY = "read user_ip4 in programs of connect4, bind4 …, and user_ip6 in those of connect6, bind6 …"
_SENT_FROM = (
    'the address that a datagram is sent from is there in SEC("cgroup/sendmsg4"), msg_src_ip4, and in '
    'SEC("cgroup/sendmsg6"), msg_src_ip6'
)
_BOUND = (
    "a socket has its own address and port when it is bound: read src_ip4 in "
    'SEC("cgroup/post_bind4"), src_ip6 in SEC("cgroup/post_bind6"), and src_port in both'
)
_OF_SOCK_OPS = (
    'such a program writes only reply, replylong and sk_txhash; SEC("cgroup/connect4") may change the '
    "address before the connection: ctx->user_ip4, ctx->user_port"
)
_ANY = "each type of program has its own list: is_valid_access in the kernel, net/core/filter.c for packets"


def fix_for_field(refused: str, type: ProgramType | int) -> str:
    """Returns the remedy. `refused` is the sentence that names verb, field and struct."""
    found = re.search(r"not (read|write) the field '(\w+)' of struct (\w+)", refused)
    if found is None:
        return _ANY
    verb, field, struct = found.groups()
    if verb == "write":
        if struct.endswith("pt_regs") and type == ProgramType.KPROBE:
            return _REGISTERS
        return _WRITES.get((struct, field), _OF_SOCK_OPS if struct == "bpf_sock_ops" else _ANY)
    if struct == "__sk_buff" and field in ("data", "data_end", "data_meta"):
        return _DATA
    if struct == "bpf_sock_addr" and field.startswith("msg_src_"):
        return _SENT_FROM
    if (
        struct == "bpf_sock"
        and type == ProgramType.CGROUP_SOCK
        and field in ("src_ip4", "src_ip6", "src_port")
    ):
        return _BOUND
    if struct == "bpf_sock_addr" and field.endswith(("_ip4", "_ip6")):
        return _FAMILY
    return _ANY
