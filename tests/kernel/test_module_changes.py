"""Tests that modules which come and go are noticed."""

import os
import subprocess
from pathlib import Path

from pytest_bpfmaps.kernel.symbol_changes import loaded_modules

MODULES = ("dummy", "raid1", "tun")  # a kernel may have some of them loaded, built in, or not at all


def listed():
    """Returns what /sys/module shows now."""
    return {(entry.name, entry.inode()) for entry in os.scandir("/sys/module")}


def test_a_module_that_comes_goes_and_comes_again_is_noticed(bpf):
    for module in MODULES:
        if Path("/sys/module", module).exists():
            continue
        for action in ("--quiet", "--remove", "--quiet", "--remove"):
            subprocess.run(["modprobe", action, module], check=False, capture_output=True, timeout=120)
            assert loaded_modules() == listed()
