"""Reads the log of the kernel's verifier, and explains it in terms of the C source."""

from __future__ import annotations

from pytest_bpfmaps.verifier.advice import advise
from pytest_bpfmaps.verifier.instruction_advice import advise_closer
from pytest_bpfmaps.verifier.log import Rejection, parse_log

__all__ = ["Rejection", "advise", "advise_closer", "parse_log"]
