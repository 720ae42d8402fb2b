"""Test BPF programs with pytest: compile, load into a real kernel, assert on typed maps and events."""

from __future__ import annotations

from .errors import (
    AttachError,
    BpfError,
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

BPF_ANY = 0
"""Update: create the element, or replace it."""
BPF_NOEXIST = 1
"""Update: only create; `MapError` with `EEXIST` when the key is there."""
BPF_EXIST = 2
"""Update: only replace; `MapKeyError` when the key is not there."""
BPF_F_LOCK = 4
"""Lookup and update: take the ``struct bpf_spin_lock`` of the value (Linux 5.1)."""

__all__ = [
    "BPF_ANY",
    "BPF_EXIST",
    "BPF_F_LOCK",
    "BPF_NOEXIST",
    "AttachError",
    "BpfError",
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
    "NoValueError",
    "PortabilityError",
    "PortabilityWarning",
    "SourceNotFoundError",
    "TriggerError",
    "UnsupportedError",
    "VerifierError",
    "VmError",
    "VmLostError",
    "VmTimeoutError",
]
