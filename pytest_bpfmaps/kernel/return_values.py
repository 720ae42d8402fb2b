"""Named return values of programs: an `IntEnum` for each program type whose values have names."""

from __future__ import annotations

from enum import IntEnum

from pytest_bpfmaps.btf.enumerator import Enumerator
from pytest_bpfmaps.kernel.bpf_types import ProgramType


class _Returned(Enumerator):
    """A return value, which prints as its name and equals its name."""

    def __repr__(self) -> str:  # so pytest's texts, also of lists of verdicts, have the names alone
        return self.name

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        return int.__format__(self, spec) if spec else self.name


class XdpAction(_Returned):
    """What XDP does with a packet: ``enum xdp_action`` of ``<linux/bpf.h>``."""

    XDP_ABORTED = 0
    XDP_DROP = 1
    XDP_PASS = 2
    XDP_TX = 3
    XDP_REDIRECT = 4


class TcAction(_Returned):
    """What tc does with a packet: ``TC_ACT_*`` of ``<linux/pkt_cls.h>``, ``enum tcx_action_base``."""

    TC_ACT_UNSPEC = -1
    TC_ACT_OK = 0
    TC_ACT_RECLASSIFY = 1
    TC_ACT_SHOT = 2
    TC_ACT_PIPE = 3
    TC_ACT_STOLEN = 4
    TC_ACT_QUEUED = 5
    TC_ACT_REPEAT = 6
    TC_ACT_REDIRECT = 7
    TC_ACT_TRAP = 8
    TCX_NEXT = -1
    TCX_PASS = 0
    TCX_DROP = 2
    TCX_REDIRECT = 7


class BpfReturn(_Returned):
    """What lightweight tunnels and flow dissectors return: ``enum bpf_ret_code`` of ``<linux/bpf.h>``."""

    BPF_OK = 0
    BPF_DROP = 2
    BPF_REDIRECT = 7
    BPF_LWT_REROUTE = 128
    BPF_FLOW_DISSECTOR_CONTINUE = 129


class SkAction(_Returned):
    """Whether a socket is chosen or a message passes: ``enum sk_action`` of ``<linux/bpf.h>``."""

    SK_DROP = 0
    SK_PASS = 1


class NetfilterVerdict(_Returned):
    """What netfilter does with a packet: ``NF_*`` of ``<linux/netfilter.h>``."""

    NF_DROP = 0
    NF_ACCEPT = 1


_LWT = ("LWT_IN", "LWT_OUT", "LWT_XMIT", "LWT_SEG6LOCAL", "FLOW_DISSECTOR")
NAMES: dict[int, type[IntEnum]] = {
    ProgramType.XDP: XdpAction,
    ProgramType.SCHED_CLS: TcAction,
    ProgramType.SCHED_ACT: TcAction,
    ProgramType.NETFILTER: NetfilterVerdict,
    **{ProgramType[name]: BpfReturn for name in _LWT},
    **{ProgramType[name]: SkAction for name in ("SK_LOOKUP", "SK_SKB", "SK_MSG", "SK_REUSEPORT")},
}
"""The enum of each program type; other types return numbers without names."""

XDP_ABORTED = XdpAction.XDP_ABORTED
XDP_DROP = XdpAction.XDP_DROP
XDP_PASS = XdpAction.XDP_PASS
XDP_TX = XdpAction.XDP_TX
XDP_REDIRECT = XdpAction.XDP_REDIRECT
TC_ACT_UNSPEC = TcAction.TC_ACT_UNSPEC
TC_ACT_OK = TcAction.TC_ACT_OK
TC_ACT_RECLASSIFY = TcAction.TC_ACT_RECLASSIFY
TC_ACT_SHOT = TcAction.TC_ACT_SHOT
TC_ACT_PIPE = TcAction.TC_ACT_PIPE
TC_ACT_STOLEN = TcAction.TC_ACT_STOLEN
TC_ACT_QUEUED = TcAction.TC_ACT_QUEUED
TC_ACT_REPEAT = TcAction.TC_ACT_REPEAT
TC_ACT_REDIRECT = TcAction.TC_ACT_REDIRECT
TC_ACT_TRAP = TcAction.TC_ACT_TRAP
TCX_NEXT = TcAction.TCX_NEXT
TCX_PASS = TcAction.TCX_PASS
TCX_DROP = TcAction.TCX_DROP
TCX_REDIRECT = TcAction.TCX_REDIRECT
BPF_OK = BpfReturn.BPF_OK
BPF_DROP = BpfReturn.BPF_DROP
BPF_REDIRECT = BpfReturn.BPF_REDIRECT
BPF_LWT_REROUTE = BpfReturn.BPF_LWT_REROUTE
BPF_FLOW_DISSECTOR_CONTINUE = BpfReturn.BPF_FLOW_DISSECTOR_CONTINUE
SK_DROP = SkAction.SK_DROP
SK_PASS = SkAction.SK_PASS
NF_DROP = NetfilterVerdict.NF_DROP
NF_ACCEPT = NetfilterVerdict.NF_ACCEPT
