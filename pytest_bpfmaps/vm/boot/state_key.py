"""What a saved state depends on: the key in its name, and the files that make it current or not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from pytest_bpfmaps.paths import PACKAGE
from pytest_bpfmaps.vm.boot import initramfs, saved_states
from pytest_bpfmaps.vm.boot.initramfs import find_busybox
from pytest_bpfmaps.vm.boot.kernel_arguments import TCG, environment_of_python, kernel_arguments
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.architecture import architecture
from pytest_bpfmaps.vm.machine.host_cpu import host_cpu
from pytest_bpfmaps.vm.machine.qemu import MachineConfig, find_qemu

FORMAT = 5


def state_key(kernel: Kernel, shape: MachineConfig) -> str:
    """Returns a key by which states of one kernel differ."""
    facts: list[Any] = [FORMAT, os.path.realpath(kernel.image), asdict(shape), sys.executable, os.geteuid()]
    facts += [initramfs.search_path(), sorted(environment().items())]
    facts += [kernel_arguments(kernel, shape), asdict(architecture(kernel.arch)), TCG]
    facts += [qemu := find_qemu(kernel.arch), saved_states.stamp(qemu)]
    facts += [host_cpu()] if shape.kvm else []
    return sha256(json.dumps(facts).encode()).hexdigest()[:12]


def parts(kernel: Kernel) -> Iterator[Path]:
    """Gives the files, other than Python's, that a state depends on."""
    yield Path(find_qemu(kernel.arch))
    yield Path(find_busybox())
    yield from (p.resolve() for p in (kernel.image, kernel.vmlinux) if p is not None)
    yield from (PACKAGE / "vm").rglob("*.py")


def environment() -> dict[str, str]:
    """Returns the environment variables that Python has in every state."""
    kept = environment_of_python()
    kept.pop("TZ", None)  # the job brings the worker's
    return kept
