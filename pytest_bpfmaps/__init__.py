"""Test BPF programs with pytest: compile, load into a real kernel, assert on typed maps and events."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_bpfmaps.errors import (
    AmbiguousNameError,
    AttachError,
    BpfError,
    CacheError,
    CaptureTimeoutError,
    ClosedError,
    CompileError,
    ContextTypeWarning,
    ExpectationError,
    LoaderError,
    LoadError,
    LostAddWarning,
    MapEmptyError,
    MapError,
    MapKeyError,
    MapOverflowError,
    MapTypeError,
    MapUseWarning,
    MapValueError,
    NameLookupError,
    NoValueError,
    PortabilityError,
    PortabilityWarning,
    ReusedTypeWarning,
    SharedCounterWarning,
    SmallKeysWarning,
    SourceNotFoundError,
    TriggerError,
    UncheckedUpdateWarning,
    UnknownNameWarning,
    UnsupportedError,
    ValueSizeWarning,
    VerifierError,
    VmError,
    VmLostError,
    VmTimeoutError,
)

if TYPE_CHECKING:
    from pytest_bpfmaps.attach.links import Link
    from pytest_bpfmaps.btf.record import Record
    from pytest_bpfmaps.events.capture import Capture
    from pytest_bpfmaps.harness import Bpf
    from pytest_bpfmaps.kernel.map_flags import (
        BPF_ANY,
        BPF_EXIST,
        BPF_F_ALL_CPUS,
        BPF_F_CPU,
        BPF_F_LOCK,
        BPF_NOEXIST,
    )
    from pytest_bpfmaps.kernel.return_values import (
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
    from pytest_bpfmaps.kernel.running_kernel import RunningKernel
    from pytest_bpfmaps.loaders.process import LoaderProcess
    from pytest_bpfmaps.maps.snapshot import Snapshot
    from pytest_bpfmaps.objects.any_map import Map
    from pytest_bpfmaps.objects.loaded import LoadedObject
    from pytest_bpfmaps.objects.opened import OpenedObject
    from pytest_bpfmaps.programs.prog_run import RunResult
    from pytest_bpfmaps.programs.program import Program
    from pytest_bpfmaps.triggers.cgroup import Cgroup
    from pytest_bpfmaps.triggers.netns import NetNs, NetNsFactory
    from pytest_bpfmaps.triggers.process import PausedProcess, ProcessFactory

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
    "Bpf",
    "BpfError",
    "BpfReturn",
    "CacheError",
    "Capture",
    "CaptureTimeoutError",
    "Cgroup",
    "ClosedError",
    "CompileError",
    "ContextTypeWarning",
    "ExpectationError",
    "Link",
    "LoadError",
    "LoadedObject",
    "LoaderError",
    "LoaderProcess",
    "LostAddWarning",
    "Map",
    "MapEmptyError",
    "MapError",
    "MapKeyError",
    "MapOverflowError",
    "MapTypeError",
    "MapUseWarning",
    "MapValueError",
    "NameLookupError",
    "NetNs",
    "NetNsFactory",
    "NetfilterVerdict",
    "NoValueError",
    "OpenedObject",
    "PausedProcess",
    "PortabilityError",
    "PortabilityWarning",
    "ProcessFactory",
    "Program",
    "Record",
    "ReusedTypeWarning",
    "RunResult",
    "RunningKernel",
    "SharedCounterWarning",
    "SkAction",
    "SmallKeysWarning",
    "Snapshot",
    "SourceNotFoundError",
    "TcAction",
    "TriggerError",
    "UncheckedUpdateWarning",
    "UnknownNameWarning",
    "UnsupportedError",
    "ValueSizeWarning",
    "VerifierError",
    "VmError",
    "VmLostError",
    "VmTimeoutError",
    "XdpAction",
]


_TYPES = {
    "Bpf": "pytest_bpfmaps.harness",
    "Capture": "pytest_bpfmaps.events.capture",
    "Cgroup": "pytest_bpfmaps.triggers.cgroup",
    "Link": "pytest_bpfmaps.attach.links",
    "LoadedObject": "pytest_bpfmaps.objects.loaded",
    "LoaderProcess": "pytest_bpfmaps.loaders.process",
    "Map": "pytest_bpfmaps.maps.base",
    "NetNs": "pytest_bpfmaps.triggers.netns",
    "NetNsFactory": "pytest_bpfmaps.triggers.netns",
    "OpenedObject": "pytest_bpfmaps.objects.opened",
    "PausedProcess": "pytest_bpfmaps.triggers.process",
    "ProcessFactory": "pytest_bpfmaps.triggers.process",
    "Program": "pytest_bpfmaps.programs.program",
    "Record": "pytest_bpfmaps.btf.record",
    "RunResult": "pytest_bpfmaps.programs.prog_run",
    "RunningKernel": "pytest_bpfmaps.kernel.running_kernel",
    "Snapshot": "pytest_bpfmaps.maps.snapshot",
}
"""The module that defines each public class, by the class's name."""


def __getattr__(name: str) -> Any:
    """Returns the class, map flag or return value of that name. Imports its module on first use."""
    if name in _TYPES:
        return getattr(import_module(_TYPES[name]), name)
    if name in __all__:
        from pytest_bpfmaps.kernel import map_flags, return_values

        return getattr(map_flags if hasattr(map_flags, name) else return_values, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
