"""What differs between architectures: names of QEMU and of the kernel."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_bpfmaps.errors import VmError


@dataclass(frozen=True)
class Architecture:
    """One row of the table; `name` is what ``uname -m`` says."""

    name: str
    qemu: str
    """QEMU's binary."""
    package: str
    """The Debian package that has it."""
    machine: str
    """QEMU's machine type."""
    emulated_cpu: str
    """QEMU's CPU model where KVM is missing."""
    cpu_features_off: tuple[tuple[str, ...], ...]
    """Properties of that model to switch off, if this QEMU has them.

    The properties of a group belong together.
    """
    bus: str
    """The bus of virtio devices: the suffix of QEMU's devices, ``virtio-9p-pci``, and of a kernel module."""
    console: str
    """The kernel's name of the first serial port."""
    kernel_arguments: tuple[str, ...]
    """More words for the kernel's command line."""
    emulated_kernel_arguments: tuple[str, ...]
    """And those for a guest without KVM."""

    def device(self, kind: str, *settings: str) -> list[str]:
        """Returns QEMU's arguments for a virtio device."""
        return ["-device", ",".join([f"{kind}-{self.bus}", *settings])]


ARCHITECTURES = {
    row.name: row
    for row in (
        Architecture(
            name="x86_64",
            qemu="qemu-system-x86_64",
            package="qemu-system-x86",
            machine="pc",
            emulated_cpu="max",
            cpu_features_off=(
                ("la57",),  # with a fifth level of page tables, each emulated TLB miss costs more
                # The kernel uses `rep movsb` where the CPU says that it is fast. Emulated, it copies byte by
                # byte. The other four are more promises about it, which newer QEMUs make. Linux 6.1 does not
                # boot with `fsrm` alone: its memmove then leaves out the check for short copies. That is
                # right only together with the `rep movsb` that `erms` puts there.
                ("erms", "fsrm", "fzrm", "fsrs", "fsrc"),
            ),
            bus="pci",
            console="ttyS0",
            kernel_arguments=(
                # On a busy machine an emulated timer may miss its test at boot, and the kernel panics.
                "no_timer_check",
                "psmouse.proto=exps",  # as virtme-ng does: looking for other mice is slow
            ),
            # Else the kernel patches its code for one CPU, and patches it back when the second CPU starts.
            emulated_kernel_arguments=("noreplace-smp",),
        ),
    )
}


def architecture(name: str) -> Architecture:
    """Returns the row called `name`. Raises VmError when there is none."""
    if name not in ARCHITECTURES:
        raise VmError(
            "cannot start a guest",
            on=f"of architecture {name}",
            why=f"guests are known for {', '.join(ARCHITECTURES)} only",
            fix="use --bpf-kernel=host on this machine, or another machine",
        )
    return ARCHITECTURES[name]
