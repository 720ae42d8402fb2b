"""Checks whether a run can have guests, and whether somebody can debug in them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pytest_bpfmaps.matrix.selection import Selection
from pytest_bpfmaps.vm.boot.backends import CHOICES
from pytest_bpfmaps.vm.boot.start import check as check_way
from pytest_bpfmaps.vm.machine.capacity import size

XDIST_MISSING = "guests are pytest-xdist workers, and pytest-xdist is {}\n  -> {}"


def why_nobody_debugs(config: pytest.Config, kernels: Sequence[str]) -> str:
    """Returns why nobody can debug in the only guest; empty where it is possible.

    Raises pytest.UsageError if that is so and an option such as ``--pdb`` asks to debug.
    """
    if len(kernels) == 1:
        return ""
    why = f"workers for {', '.join(kernels)} run at the same time, and there is one terminal"
    options = {"pdb": "usepdb", "trace": "trace", "bpf-gdb": "bpf_gdb"}
    asked = [option for option, name in options.items() if config.getoption(name)]
    if asked:
        fix = f"choose tests of one kernel: --bpf-kernel={kernels[0]}, -k {kernels[0]}, or FILE::TEST"
        raise pytest.UsageError(f"--{asked[0]} can't be used here: {why}\n  -> {fix}")
    return why


def piped_input(config: pytest.Config) -> str | None:
    """Returns the path of the standard input, where tests may read it and it is no terminal."""
    return f"/proc/{os.getpid()}/fd/0" if config.getoption("capture") == "no" and not os.isatty(0) else None


def check(config: pytest.Config, selection: Selection, options: Mapping[str, Any]) -> None:
    """Raises pytest.UsageError or VmError when guests can't be had."""
    _require_xdist(config)
    if options["bpf_vm"] not in CHOICES:
        known = " or ".join(repr(name) for name in CHOICES)
        raise pytest.UsageError(
            f"bpf_vm = {options['bpf_vm']!r}: there is no such way to start guests\n  -> give {known}"
        )
    size(options["bpf_vm_memory"])
    check_way(options["bpf_vm"], selection.guests[0].kernel.arch)


def _require_xdist(config: pytest.Config) -> None:
    if not config.pluginmanager.has_plugin("xdist"):
        blocked = config.pluginmanager.is_blocked("xdist")
        raise pytest.UsageError(
            XDIST_MISSING.format("switched off", "leave out -p no:xdist")
            if blocked
            else XDIST_MISSING.format("not installed", "pip install 'pytest-bpfmaps[vm]'")
        )
