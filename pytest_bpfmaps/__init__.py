"""Test BPF programs with pytest: compile, load into a real kernel, assert on typed maps and events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_bpfmaps.errors import (
    AmbiguousNameError,
    AttachError,
    BpfError,
    CacheError,
    CaptureTimeoutError,
    ClosedError,
    CompileError,
    ExpectationError,
    LoadError,
    MapEmptyError,
    MapError,
    MapKeyError,
    MapOverflowError,
    MapTypeError,
    MapValueError,
    NameLookupError,
    NoValueError,
    PortabilityError,
    PortabilityWarning,
    SourceNotFoundError,
    TriggerError,
    UnsupportedError,
    VerifierError,
    VmError,
    VmLostError,
    VmTimeoutError,
)

if TYPE_CHECKING:
    from pytest_bpfmaps.kernel.retvals import (
        BPF_DROP,
        BPF_FLOW_DISSECTOR_CONTINUE,
        BPF_LWT_REROUTE,
        BPF_OK,
        BPF_REDIRECT,
        NF_ACCEPT,
        NF_DROP,
        SK_DROP,
        SK_PASS,
        TC_ACT_OK,
        TC_ACT_PIPE,
        TC_ACT_QUEUED,
        TC_ACT_RECLASSIFY,
        TC_ACT_REDIRECT,
        TC_ACT_REPEAT,
        TC_ACT_SHOT,
        TC_ACT_STOLEN,
        TC_ACT_TRAP,
        TC_ACT_UNSPEC,
        TCX_DROP,
        TCX_NEXT,
        TCX_PASS,
        TCX_REDIRECT,
        XDP_ABORTED,
        XDP_DROP,
        XDP_PASS,
        XDP_REDIRECT,
        XDP_TX,
        BpfReturn,
        NetfilterVerdict,
        SkAction,
        TcAction,
        XdpAction,
    )

BPF_ANY = 0
"""Update: create the element, or replace it."""
BPF_NOEXIST = 1
"""Update: only create; `MapError` with `EEXIST` when the key is there."""
BPF_EXIST = 2
"""Update: only replace; `MapKeyError` when the key is not there."""
BPF_F_LOCK = 4
"""Lookup and update: take the ``struct bpf_spin_lock`` of the value (Linux 5.1)."""

BPF_F_CPU = 8
"""Lookup and update of a per-CPU map: one CPU's value; ``cpu << 32 | BPF_F_CPU`` (Linux 6.19)."""
BPF_F_ALL_CPUS = 16
"""Update of a per-CPU map: the same value for all CPUs (Linux 6.19)."""


__all__ = [
    "BPF_ANY",
    "BPF_DROP",
    "BPF_EXIST",
    "BPF_FLOW_DISSECTOR_CONTINUE",
    "BPF_F_ALL_CPUS",
    "BPF_F_CPU",
    "BPF_F_LOCK",
    "BPF_LWT_REROUTE",
    "BPF_NOEXIST",
    "BPF_OK",
    "BPF_REDIRECT",
    "NF_ACCEPT",
    "NF_DROP",
    "SK_DROP",
    "SK_PASS",
    "TCX_DROP",
    "TCX_NEXT",
    "TCX_PASS",
    "TCX_REDIRECT",
    "TC_ACT_OK",
    "TC_ACT_PIPE",
    "TC_ACT_QUEUED",
    "TC_ACT_RECLASSIFY",
    "TC_ACT_REDIRECT",
    "TC_ACT_REPEAT",
    "TC_ACT_SHOT",
    "TC_ACT_STOLEN",
    "TC_ACT_TRAP",
    "TC_ACT_UNSPEC",
    "XDP_ABORTED",
    "XDP_DROP",
    "XDP_PASS",
    "XDP_REDIRECT",
    "XDP_TX",
    "AmbiguousNameError",
    "AttachError",
    "BpfError",
    "BpfReturn",
    "CacheError",
    "CaptureTimeoutError",
    "ClosedError",
    "CompileError",
    "ExpectationError",
    "LoadError",
    "MapEmptyError",
    "MapError",
    "MapKeyError",
    "MapOverflowError",
    "MapTypeError",
    "MapValueError",
    "NameLookupError",
    "NetfilterVerdict",
    "NoValueError",
    "PortabilityError",
    "PortabilityWarning",
    "SkAction",
    "SourceNotFoundError",
    "TcAction",
    "TriggerError",
    "UnsupportedError",
    "VerifierError",
    "VmError",
    "VmLostError",
    "VmTimeoutError",
    "XdpAction",
]


def __getattr__(name: str) -> Any:
    """What programs return, by name; imported when a test wants it."""
    if name in __all__:
        from pytest_bpfmaps.kernel import retvals

        return getattr(retvals, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
