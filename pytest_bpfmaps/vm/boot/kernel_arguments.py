"""The kernel's command line in a guest, QEMU's emulation, and the environment in which Python starts."""

from __future__ import annotations

import os

from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.architecture import architecture
from pytest_bpfmaps.vm.machine.qemu import MachineConfig

# A kernel that oopses panics, and QEMU ends; else a half-dead kernel would go on. The rest saves seconds
# where the CPU is emulated.
KERNEL_ARGUMENTS = (
    # Lines on the console show progress. guest/init.py makes the console quiet when the guest has booted.
    "loglevel=7",
    "oops=panic",
    "panic=-1",
    "mitigations=off",
    "nokaslr",
    "random.trust_cpu=on",
    "kasan_multi_shot",  # else only the first test that corrupts memory would fail
    # Where bpf is missing from this list, LSM programs can be attached, and never run.
    "lsm=lockdown,capability,landlock,yama,bpf",
    # A kernel may survive these, but the test does not. A panic ends QEMU, and shows which test it was.
    # guest/init.py sets the time limits.
    *(
        f"sysctl.kernel.{name}=1"
        for name in ("softlockup_panic", "hardlockup_panic", "hung_task_panic", "panic_on_rcu_stall")
    ),
    # An NMI is the last way to reach a kernel that does not answer. Each CPU then prints where it is.
    "sysctl.kernel.unknown_nmi_panic=1",
    "sysctl.kernel.panic_print=64",
)
# And LC_*, PYTHON*: Python reads them when it starts.
PASSED_TO_PYTHON = ("LANG", "LANGUAGE", "LD_LIBRARY_PATH", "TZ")
# Boot and collection are faster with one CPU than with two that take turns under emulation.
# matrix/worker.py starts the other CPUs for the tests.
TCG_ARGUMENTS = (
    "maxcpus=1",
    # How long a delay loop is. A second CPU would measure it for two seconds, and fail. Emulated devices do
    # not mind delays that are too short or too long.
    "lpj=10000000",
    "cryptomgr.notests",  # these self-tests take a third of a second
)
# All CPUs run in one thread. With a thread for each CPU, QEMU 7.2 sometimes went on for ever to run an int3
# that the kernel had already patched away on the other CPU (once in some two thousand tests). It also took
# half again as much time.
TCG = "tcg,thread=single"


def kernel_arguments(kernel: Kernel, shape: MachineConfig) -> list[str]:
    """Returns the words of the kernel's command line, without those about its first process."""
    arch = architecture(kernel.arch)
    words = [f"console={arch.console}", *KERNEL_ARGUMENTS, *arch.kernel_arguments]
    return words if shape.kvm else [*words, *TCG_ARGUMENTS, *arch.emulated_kernel_arguments]


def environment_of_python() -> dict[str, str]:
    """Returns the environment variables that decide how Python starts."""
    kept = {n: v for n, v in os.environ.items() if n in PASSED_TO_PYTHON or n.startswith(("LC_", "PYTHON"))}
    return {name: value for name, value in kept.items() if name != "PYTHONPATH"}  # the job brings PYTHONPATH
