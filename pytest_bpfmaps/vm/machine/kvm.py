"""Finds out whether KVM runs a kernel on this machine. That `/dev/kvm` opens and answers proves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from pytest_bpfmaps import paths
from pytest_bpfmaps.cache.locks import only_one
from pytest_bpfmaps.cache.stored_files import own, read_json, remember
from pytest_bpfmaps.errors import shown_lines
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.architecture import architecture
from pytest_bpfmaps.vm.machine.child_process import die_with, waited_for_processor
from pytest_bpfmaps.vm.machine.host_cpu import KVM
from pytest_bpfmaps.vm.machine.qemu import find_qemu
from pytest_bpfmaps.vm.machine.qemu_features import features

SILENT_SECONDS = 20.0  # a kernel that prints nothing new for so long hangs
PROBE_SECONDS = 300.0  # a kernel that prints something: nested machines take minutes
RETRY_SECONDS, MOST_RETRY_SECONDS = 900.0, 86400.0  # after a hang, which load may have caused
EMULATED_FACTOR = 3.0  # how much longer everything may take in an emulated guest
_PAUSE = 0.02
_PANIC = b"Kernel panic - not syncing: VFS"  # the kernel reached its missing root file system
_QEMU_PREFIX = re.compile(r"^\S*qemu\S*: (\S+:\d+: )?")


@dataclass(frozen=True)
class Verdict:
    """`kvm`: guests run with KVM. Otherwise they are emulated, and `why` is the reason.

    `hung` counts how often in a row the kernel hung or restarted. KVM is then tried again at `retry`, in
    seconds since the epoch. Other verdicts hold until the next boot.
    """

    kvm: bool
    why: str = ""
    hung: int = 0
    retry: float = 0.0

    @property
    def cause(self) -> str:
        """`why` without what QEMU and the kernel printed. ``bpfmaps doctor`` shows that, too."""
        return re.sub(r" \((?:QEMU:|its kernel) .*", " (see `bpfmaps doctor`)", self.why)

    def stretch(self, seconds: float) -> float:
        """Returns how long in such a guest may take what takes `seconds` on real hardware."""
        return seconds if self.kvm else seconds * EMULATED_FACTOR


def judge(kernel: Kernel) -> Verdict:
    """Returns whether KVM runs `kernel`. The verdict holds until the next boot or another QEMU.

    A hang is tried again earlier.
    """
    if not KVM.exists():
        return Verdict(False, "this machine has no /dev/kvm")
    if not os.access(KVM, os.R_OK | os.W_OK):
        return Verdict(False, "/dev/kvm is not accessible to this user (join the group kvm)")
    qemu = find_qemu(kernel.arch)
    folder = own(paths.cache_dir())
    memory = folder / "kvm.json"
    binary = os.stat(qemu)  # running it with --version would take as long as starting a warm guest
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = f"{boot} {binary.st_size} {binary.st_mtime_ns}"
    verdict = _remembered(memory, key)
    if verdict is not None and _holds(verdict):
        return verdict
    with only_one(folder / ".kvm.lock", "find out whether KVM works", 2 * PROBE_SECONDS):
        verdict = _remembered(memory, key)
        if verdict is None or not _holds(verdict):
            verdict = _again_later(probe(kernel, qemu), hung_before=verdict.hung if verdict else 0)
            remember(memory, {"key": key, **asdict(verdict)})
    return verdict


def _remembered(memory: Path, key: str) -> Verdict | None:
    try:
        facts = read_json(memory)
        return Verdict(**facts) if facts.pop("key") == key else None
    except (KeyError, TypeError):  # there is none, or another version wrote it
        return None


def _holds(verdict: Verdict) -> bool:
    return not verdict.hung or time.time() < verdict.retry < time.time() + MOST_RETRY_SECONDS + 1


def _again_later(verdict: Verdict, hung_before: int) -> Verdict:
    """Plans to try again after a hang: after a quarter of an hour, and each time after twice as long."""
    if not verdict.hung:
        return verdict
    wait = min(RETRY_SECONDS * 2**hung_before, MOST_RETRY_SECONDS)
    later = f"{wait / 60:.0f} min" if wait < 7200 else f"{wait / 3600:.0f} h"
    why = f"{verdict.why}; KVM is tried again in {later}, or when {paths.cache_dir() / 'kvm.json'} is deleted"
    return Verdict(False, why, hung_before + 1, time.time() + wait)


def probe(kernel: Kernel, qemu: str, silent: float | None = None, longest: float = PROBE_SECONDS) -> Verdict:
    """Boots `kernel` with KVM and no root file system. It must reach its panic about that.

    It has up to `longest` seconds, as long as it prints something new every `silent` seconds. The default of
    `silent` is `SILENT_SECONDS`, or what this QEMU needs to answer. Time in which it waits for a processor
    does not count.
    """
    arch = architecture(kernel.arch)
    command = [qemu, "-machine", f"{arch.machine},accel=kvm", "-cpu", "host", "-m", "512M", "-nodefaults"]
    command += ["-no-reboot", "-display", "none", "-serial", "stdio", "-kernel", str(kernel.image)]
    # The kernel prints everything that it does from the first moment on. That shows its progress.
    words = f"console={arch.console} earlyprintk={arch.console},115200 ignore_loglevel panic=-1 root=none"
    command += ["-append", words]
    parent = os.getpid()
    if silent is None:
        silent = max(SILENT_SECONDS, features(qemu).patience)
    with (
        tempfile.TemporaryFile() as console,
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=messages,
            process_group=0,
            preexec_fn=lambda: die_with(parent),  # noqa: PLW1509 - no lock is held here
        ) as process,
    ):
        try:
            return _watch(process, console, messages, silent, longest)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # `qemu` may be a script that starts QEMU


def _watch(
    process: subprocess.Popen[bytes], console: IO[bytes], messages: IO[bytes], silent: float, longest: float
) -> Verdict:
    began = heard = time.monotonic()
    said, waited = 0, 0.0
    while True:
        ended = process.poll() is not None
        if _PANIC in _text(console):
            return Verdict(True)
        if ended and process.returncode == 0:  # QEMU ends so when its kernel restarts
            return Verdict(False, _no_panic(_text(console), "its kernel restarted early"), hung=1)
        if ended:
            words = shown_lines(_text(messages).decode(errors="replace").strip().split("\n")[-1])
            why = _QEMU_PREFIX.sub("", words) or f"it ended with status {process.returncode}"
            return Verdict(False, f"/dev/kvm exists but does not run a kernel (QEMU: {why})")
        size, waited = os.fstat(console.fileno()).st_size, max(waited, waited_for_processor(process.pid))
        now = time.monotonic() - waited
        if size != said:
            said, heard = size, now
        if now - heard > silent or now - began > longest:
            silence = now - heard
            how = f"its kernel hung after {heard - began:.0f} s, and was silent for {silence:.0f} s more"
            return Verdict(False, _no_panic(_text(console), how), hung=1)
        time.sleep(_PAUSE)


def _text(file: IO[bytes]) -> bytes:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def _no_panic(console: bytes, how: str) -> str:
    lines = [line.strip() for line in console.decode(errors="replace").splitlines() if line.strip()]
    last = f"last line: {lines[-1]!r}" if lines else "it said nothing"
    return f"/dev/kvm exists but does not run a kernel ({how}; {last})"
