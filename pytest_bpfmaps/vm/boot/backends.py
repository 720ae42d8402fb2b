"""The ways to start a guest.

Each is a module with ``check(arch)`` and ``start(kernel, config, more) -> Machine``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

WARM, VIRTME = "warm", "virtme-ng"
MODULES = {WARM: "pytest_bpfmaps.vm.boot.warm", VIRTME: "pytest_bpfmaps.vm.boot.virtme"}
AUTO = "auto"  # warm, and virtme-ng where that fails
CHOICES = (AUTO, *MODULES)


def way(name: str) -> Any:
    """Returns the module of that name. Raises KeyError for a name that is not in `MODULES`."""
    return import_module(MODULES[name])
