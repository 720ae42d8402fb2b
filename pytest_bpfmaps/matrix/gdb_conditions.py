"""Checks whether somebody can attach gdb in a run (``--bpf-gdb``)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.default_kernel import refusal
from pytest_bpfmaps.matrix.selection import AUTO


def check_gdb(config: pytest.Config, kernels: Sequence[str]) -> None:
    """Raises pytest.UsageError where nobody can attach gdb. `kernels` is what ``--bpf-kernel`` asks for."""
    option = config.option
    why, fix = "", ""
    asked = {part.strip() for each in kernels for part in each.split(",")} - {""}
    if asked == {HOST} or (asked <= {AUTO} and not refusal()):
        why = "gdb attaches to the kernel of a guest, and these tests run on the host's kernel"
        fix = "choose a kernel: --bpf-kernel=6.1 (see `bpfmaps kernels list`)"
    elif option.dist != "no" and option.tx:
        why, fix = "several workers run at the same time, and there is one terminal", "leave out -n, --tx"
    else:
        try:
            os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError as error:
            why = f"pytest has no terminal ({error.strerror}), and a failing test waits for a key"
            fix = "run it in a terminal, without nohup or setsid"
    if why:
        raise pytest.UsageError(f"--bpf-gdb can't be used here: {why}\n  -> {fix}")
