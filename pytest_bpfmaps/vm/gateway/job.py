"""What a guest needs to look like the machine that started it."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from pytest_bpfmaps import paths
from pytest_bpfmaps.cache.stored_files import own
from pytest_bpfmaps.vm.kernels.kernel import Kernel


def job(kernel: Kernel, timeout: float) -> dict[str, Any]:
    """Returns the facts of this process that a guest with `kernel` takes over.

    `timeout` is how many seconds a test has; it decides when the kernel panics because of a hang.
    """
    objects = own(paths.objects_dir())
    mask = os.umask(0)
    os.umask(mask)
    return {
        "cwd": os.getcwd(),
        "timeout": timeout,
        "env": {
            **os.environ,
            # A guest sees the host's files in /boot. By these variables probes find its own configuration
            # and types.
            "BPFMAPS_KERNEL_CONFIG": str(kernel.config or ""),
            "BPFMAPS_KERNEL_BTF": str(kernel.btf or ""),
        },
        "umask": mask,
        "path": [p for p in sys.path if p],
        "hostname": socket.gethostname(),
        "plain": [str(objects)],
        "output": False,
    }
