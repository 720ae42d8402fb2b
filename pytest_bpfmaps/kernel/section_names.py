"""The names of sections, as libbpf's documentation lists them.

https://docs.kernel.org/bpf/libbpf/program_types.html
"""

from __future__ import annotations

import re
from difflib import get_close_matches

_EXACT = """
    socket sk_reuseport sk_reuseport/migrate tc tc/ingress tc/egress tcx/ingress tcx/egress classifier action
    netkit/primary netkit/peer syscall xdp xdp/devmap xdp/cpumap xdp.frags xdp.frags/devmap xdp.frags/cpumap
    xdp_devmap xdp_cpumap perf_event lwt_in lwt_out lwt_xmit lwt_seg6local sockops sk_skb sk_skb/verdict
    sk_skb/stream_parser sk_skb/stream_verdict sk_msg sk_lookup lirc_mode2 flow_dissector netfilter
    cgroup_skb/ingress cgroup_skb/egress cgroup/skb cgroup/sock cgroup/sock_create cgroup/sock_release
    cgroup/post_bind4 cgroup/post_bind6 cgroup/bind4 cgroup/bind6
    cgroup/connect4 cgroup/connect6 cgroup/connect_unix cgroup/sendmsg4 cgroup/sendmsg6 cgroup/sendmsg_unix
    cgroup/recvmsg4 cgroup/recvmsg6 cgroup/recvmsg_unix
    cgroup/getpeername4 cgroup/getpeername6 cgroup/getpeername_unix
    cgroup/getsockname4 cgroup/getsockname6 cgroup/getsockname_unix
    cgroup/getsockopt cgroup/setsockopt cgroup/sysctl cgroup/dev
"""
_TARGETED = """
    kprobe kretprobe uprobe uprobe.s uretprobe uretprobe.s usdt usdt.s ksyscall kretsyscall
    kprobe.multi kretprobe.multi kprobe.session
    uprobe.multi uprobe.multi.s uretprobe.multi uretprobe.multi.s uprobe.session uprobe.session.s
    tracepoint tp raw_tp raw_tp.w raw_tracepoint raw_tracepoint.w tp_btf
    fentry fentry.s fexit fexit.s fmod_ret fmod_ret.s fsession fsession.s
    lsm lsm.s lsm_cgroup iter iter.s freplace struct_ops struct_ops.s
"""
TARGETED = frozenset(_TARGETED.split())
"""Names that are followed by a slash and a target."""
SECTIONS = (*_TARGETED.split(), *_EXACT.split())
"""All names; names with a target are without it."""


def near_sections(wrong: str) -> list[str]:
    """Returns section names that may have been meant, at most three: ``xdp`` for ``xdp_prog``."""
    head, slash, rest = wrong.partition("/")
    of_group = [name for name in SECTIONS if name.startswith(f"{head}/")]
    if rest and of_group:  # cgroup/foo
        return get_close_matches(wrong, of_group, n=3, cutoff=0.8) or of_group[:3]
    if not slash and (near := get_close_matches(wrong, SECTIONS, n=1, cutoff=0.85)):
        return near
    if not slash and (begun := re.match(r"([a-z]+)[_.:-]?(\w*)$", wrong)) and begun[1] in SECTIONS:
        return [f"{begun[1]}/{begun[2]}" if begun[1] in TARGETED and begun[2] else begun[1]]
    found = get_close_matches(head, SECTIONS, n=3, cutoff=0.65)
    named = [f"{name}{slash}{rest}" if name in TARGETED else name for name in found]
    return [name for name in named if name != wrong]
