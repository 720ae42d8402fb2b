"""Tells what this machine can do for BPF tests, and what to do where it can't: ``bpfmaps doctor``."""

from __future__ import annotations

from pytest_bpfmaps.doctor.check import Check, CheckState
from pytest_bpfmaps.doctor.machine import all_checks, can_test

__all__ = ["Check", "CheckState", "all_checks", "can_test"]
