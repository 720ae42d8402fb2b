"""The ways to start a guest: modules with ``check(arch)`` and ``start(kernel, config) -> Machine``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

WARM, VIRTME = "warm", "virtme-ng"
MODULES = {WARM: "pytest_bpfmaps.vm.boot.warm", VIRTME: "pytest_bpfmaps.vm.boot.virtme"}
AUTO = "auto"  # warm, and where that fails virtme-ng
CHOICES = (AUTO, *MODULES)


def way(name: str) -> Any:
    """The module of that name; raises KeyError for one that is none of `MODULES`."""
    return import_module(MODULES[name])
