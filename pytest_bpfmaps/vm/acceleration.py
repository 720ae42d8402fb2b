"""Whether KVM runs a kernel on this machine. A `/dev/kvm` that opens and answers proves nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_bpfmaps import paths
from pytest_bpfmaps.vm.architecture import architecture
from pytest_bpfmaps.vm.catalogue import Kernel
from pytest_bpfmaps.vm.child_process import die_with
from pytest_bpfmaps.vm.qemu import find_qemu

KVM = Path("/dev/kvm")
PROBE_SECONDS = 8.0  # a working KVM needs less than one
EMULATED_FACTOR = 3.0  # how much longer everything may take in an emulated guest
_QEMU_PREFIX = re.compile(r"^\S*qemu\S*: (\S+:\d+: )?")


@dataclass(frozen=True)
class Verdict:
    """`kvm`: guests run with KVM. Otherwise they are emulated, and `why` says the reason."""

    kvm: bool
    why: str = ""

    def stretch(self, seconds: float) -> float:
        """`seconds` that a person had in mind for real hardware, as they are in such a guest."""
        return seconds if self.kvm else seconds * EMULATED_FACTOR


def judge(kernel: Kernel) -> Verdict:
    """Whether KVM runs `kernel`. Decided once per boot of this machine and QEMU binary, then remembered."""
    if not KVM.exists():
        return Verdict(False, "this machine has no /dev/kvm")
    if not os.access(KVM, os.R_OK | os.W_OK):
        return Verdict(False, "/dev/kvm is not accessible to this user (join the group kvm)")
    qemu = find_qemu(kernel.arch)
    folder = paths.cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    memory = folder / "kvm.json"
    binary = os.stat(qemu)  # its --version takes as long as the start of a warm guest
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = f"{boot} {binary.st_size} {binary.st_mtime_ns}"
    if (verdict := _remembered(memory, key)) is not None:
        return verdict
    from filelock import FileLock

    with FileLock(folder / ".kvm.lock"):
        verdict = _remembered(memory, key)
        if verdict is None:
            verdict = probe(kernel, qemu)
            partial = folder / ".kvm.json"
            partial.write_text(json.dumps({"key": key, **asdict(verdict)}))
            os.replace(partial, memory)
    return verdict


def _remembered(memory: Path, key: str) -> Verdict | None:
    try:
        facts = json.loads(memory.read_text())
        return Verdict(facts["kvm"], facts["why"]) if facts["key"] == key else None
    except (OSError, ValueError, KeyError):
        return None


def probe(kernel: Kernel, qemu: str, seconds: float = PROBE_SECONDS) -> Verdict:
    """Boot `kernel` with KVM and no root file system: it must panic about that within `seconds`."""
    arch = architecture(kernel.arch)
    command = [qemu, "-machine", f"{arch.machine},accel=kvm", "-cpu", "host", "-m", "512M", "-nodefaults"]
    command += ["-no-reboot", "-display", "none", "-serial", "stdio", "-kernel", str(kernel.image)]
    command += ["-append", f"console={arch.console} panic=-1 oops=panic quiet root=none"]
    parent = os.getpid()
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            process_group=0,
            preexec_fn=lambda: die_with(parent),
        )
    except subprocess.TimeoutExpired:
        return Verdict(False, f"/dev/kvm exists but did not run a kernel within {seconds:g} s")
    if b"Kernel panic" in result.stdout and result.returncode == 0:
        return Verdict(True)
    said = _QEMU_PREFIX.sub("", result.stderr.decode(errors="replace").strip().split("\n")[-1])
    return Verdict(False, f"/dev/kvm exists but does not run a kernel (QEMU: {said or result.returncode})")
