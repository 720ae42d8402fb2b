"""Describes the processor that QEMU's ``-cpu host`` gives. A saved state needs the same processor again.

KVM is asked for it, as QEMU does: for the processor's features that this machine's kernel passes on, KVM's
own features (kvmclock and others), and the microcode. The guest's clock counts by the processor's clock, so
its frequency belongs to it. Source: Documentation/virt/kvm/api.rst and x86/cpuid.rst of Linux.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from pytest_bpfmaps.errors import VmError, remedy

KVM = Path("/dev/kvm")
CPUINFO = Path("/proc/cpuinfo")
KVM_GET_SUPPORTED_CPUID = 0xC008AE05
KVM_GET_MSR_FEATURE_INDEX_LIST = 0xC004AE0A  # Linux 4.17
KVM_GET_MSRS = 0xC008AE88
_MOST = 256  # entries in one answer; KVM has no more
_CPUID = struct.Struct("=7I12x")  # struct kvm_cpuid_entry2
# Leaves about caches and topology: they depend on the processor that asks. A restored kernel keeps its own.
_TOPOLOGY = {0x2, 0x4, 0xB, 0x18, 0x1A, 0x1F, 0x80000005, 0x80000006, 0x8000001D, 0x8000001E}
# The bits to keep: others differ from one processor to the next, or tell the size of what is enabled now.
_KEPT_OF_EBX = {(0x1, 0): 0x00FFFFFF, (0xD, 0): 0, (0xD, 1): 0}


def host_cpu() -> str:
    """Returns a digest of everything that a saved state depends on. Raises VmError when KVM does not tell."""
    try:
        kvm = os.open(KVM, os.O_RDWR | os.O_CLOEXEC)
        try:
            facts = [*cpuid(kvm), *feature_msrs(kvm)]
        finally:
            os.close(kvm)
    except OSError as error:
        raise VmError(
            "cannot tell which processor KVM offers",
            on=str(KVM),
            why=error.strerror or str(error),
            fix=remedy(
                error.errno, "make /dev/kvm accessible to this user, or hide it: guests are emulated then"
            ),
        ) from error
    return sha256(repr((facts, frequency())).encode()).hexdigest()[:16]


def cpuid(kvm: int) -> Iterator[tuple[int, ...]]:
    """Gives leaf, index, and registers EAX to EDX of what KVM (open as `kvm`) passes on. Raises OSError."""
    answer = bytearray(struct.pack("=II", _MOST, 0) + bytes(_CPUID.size * _MOST))
    fcntl.ioctl(kvm, KVM_GET_SUPPORTED_CPUID, answer)
    (count,) = struct.unpack_from("=I", answer)
    for at in range(count):
        leaf, index, _, a, b, c, d = _CPUID.unpack_from(answer, 8 + at * _CPUID.size)
        if leaf not in _TOPOLOGY:
            yield leaf, index, a, b & _KEPT_OF_EBX.get((leaf, index), 0xFFFFFFFF), c, d


def feature_msrs(kvm: int) -> Iterator[tuple[int, int | None]]:
    """Gives number and value of each register that tells of features or microcode. Raises OSError."""
    answer = bytearray(struct.pack("=I", _MOST) + bytes(4 * _MOST))
    fcntl.ioctl(kvm, KVM_GET_MSR_FEATURE_INDEX_LIST, answer)
    count, *numbers = struct.unpack(f"={1 + _MOST}I", answer)
    for number in numbers[:count]:
        one = bytearray(struct.pack("=IIIIQ", 1, 0, number, 0, 0))
        known = fcntl.ioctl(kvm, KVM_GET_MSRS, one)
        yield number, struct.unpack_from("=Q", one, 16)[0] if known else None


def frequency() -> str:
    """Returns the processor's frequency, rounded so that the kernel measures the same after the next boot.

    KVM accepts a difference of 250 millionths. It accepts more only where the processor scales its counter.
    """
    with CPUINFO.open() as file:
        found = next((line for line in file if line.startswith("bogomips")), ":0")
    return f"{float(found.partition(':')[2]):.4g}"
