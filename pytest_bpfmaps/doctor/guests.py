"""Checks of virtual machines: the programs that start them, acceleration, the kernels of the catalogue."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from pytest_bpfmaps.cache.stored_files import read_json
from pytest_bpfmaps.doctor.check import Check, CheckState
from pytest_bpfmaps.doctor.packages import install
from pytest_bpfmaps.errors import CacheError, VmError
from pytest_bpfmaps.paths import cache_dir
from pytest_bpfmaps.vm.machine.architecture import architecture
from pytest_bpfmaps.vm.machine.qemu_features import features

_WANTED_OPTIONS = {
    "9p": ("NET_9P_VIRTIO", "9P_FS"),
    "BTF": ("DEBUG_INFO_BTF",),
    "BPF LSM": ("BPF_LSM",),
    "kprobes": ("KPROBES",),
    "overlay": ("OVERLAY_FS",),
}
_NEEDED = ("9p", "BTF")


def machine_checks() -> Iterator[Check]:
    """Checks what is needed to start a guest."""
    yield from _qemu()
    yield _command("busybox", install("busybox"))
    yield _command("modprobe", install("kmod"), "/sbin", "/usr/sbin")
    yield _command("virtme-run", "pip install 'pytest-bpfmaps[vm]'", sysconfig.get_path("scripts"))
    there = importlib.util.find_spec("xdist") is not None
    yield Check(
        "vm",
        "pytest-xdist",
        CheckState.OK if there else CheckState.MISSING,
        "installed" if there else "not installed",
        "" if there else "pip install 'pytest-bpfmaps[vm]'",
    )
    yield _acceleration()


def _qemu() -> Iterator[Check]:
    try:
        arch = architecture(platform.machine())
        path = shutil.which(arch.qemu)
        if path is None:
            yield Check("vm", arch.qemu, CheckState.MISSING, "not in $PATH", install("qemu"))
            return
        qemu = features(path)
        qemu.check(arch)
    except VmError as error:
        yield Check("vm", "QEMU", CheckState.MISSING, str(error.why), str(error.fix))
        return
    if why := qemu.can_save():
        found, remedy = f"{path}: {why}: guests are booted, which is slow", "install QEMU 7.2 or later"
        yield Check("vm", arch.qemu, CheckState.LIMITED, found, remedy)
    else:
        yield Check("vm", arch.qemu, CheckState.OK, f"{path} {qemu.version}")


def _command(name: str, remedy: str, *more_folders: str) -> Check:
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *more_folders]))
    if path:
        return Check("vm", name, CheckState.OK, path)
    return Check("vm", name, CheckState.MISSING, "not in $PATH", remedy)


def _acceleration() -> Check:
    """Checks acceleration without a boot: by the verdict of an earlier run, or by the device alone."""
    if not Path("/dev/kvm").exists():
        return Check(
            "vm", "acceleration", CheckState.LIMITED, "no /dev/kvm: guests are emulated, which is slow"
        )
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Check(
            "vm",
            "acceleration",
            CheckState.LIMITED,
            "this user may not use /dev/kvm",
            "usermod -aG kvm $USER",
        )
    verdict = read_json(cache_dir() / "kvm.json")
    if not verdict:
        return Check(
            "vm", "acceleration", CheckState.OK, "/dev/kvm is there; the first guest proves whether it works"
        )
    if verdict.get("kvm"):
        return Check("vm", "acceleration", CheckState.OK, "KVM runs kernels")
    return Check("vm", "acceleration", CheckState.LIMITED, f"guests are emulated: {verdict.get('why')}")


def catalogue_checks() -> Iterator[Check]:
    """Checks each kernel that tests can run on."""
    from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

    try:
        catalogue = Catalogue()
    except CacheError as error:
        yield Check("kernels", "catalogue", CheckState.MISSING, f"{error.on}: {error.why}", error.fix or "")
        return
    kernels, damaged = list(catalogue), catalogue.damaged()
    for name, what in damaged.items():
        yield Check("kernels", name, CheckState.MISSING, what.why or "", what.fix or "")
    if not kernels and not damaged:
        yield Check(
            "kernels", "catalogue", CheckState.MISSING, "it is empty", "bpfmaps kernels fetch debian:bookworm"
        )
    for kernel in kernels:
        options = _options(kernel.config)
        lacks = [n for n, wanted in _WANTED_OPTIONS.items() if not all(o in options for o in wanted)]
        if options and any(n in lacks for n in _NEEDED):
            remedy = (
                "add a generic kernel instead: cloud images leave out what virtual machines share files with"
            )
            yield Check("kernels", kernel.name, CheckState.LIMITED, f"lacks {', '.join(lacks)}", remedy)
            continue
        found = f"{kernel.release}: " + ", ".join(n for n in _WANTED_OPTIONS if n not in lacks)
        yield Check(
            "kernels", kernel.name, CheckState.OK, found if options else f"{kernel.release}: no config"
        )


def _options(config: Path | None) -> frozenset[str]:
    if config is None or not config.exists():
        return frozenset()
    lines = (line for line in config.read_text(errors="replace").splitlines() if line.startswith("CONFIG_"))
    return frozenset(line[len("CONFIG_") :].split("=")[0] for line in lines)
