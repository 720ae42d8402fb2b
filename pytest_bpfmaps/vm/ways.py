"""The ways to start a guest: modules with ``check(arch)`` and ``start(kernel, shape) -> Machine``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

MODULES = {"warm": "pytest_bpfmaps.vm.warm", "virtme-ng": "pytest_bpfmaps.vm.virtme"}
DEFAULT = "warm"


def way(name: str) -> Any:
    """The module of that name; raises KeyError for one that is none of `MODULES`."""
    return import_module(MODULES[name])
