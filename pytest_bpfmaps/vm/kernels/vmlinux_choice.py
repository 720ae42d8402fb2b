"""Chooses the kernel whose types ``vmlinux.h`` has: one header for all kernels of a run."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpfmaps.errors import VmError

if TYPE_CHECKING:
    from pytest_bpfmaps.vm.kernels.kernel import Kernel

NEWEST, PER_KERNEL, HOST = "newest", "per-kernel", "host"
RUNNING = "/sys/kernel/btf/vmlinux"


@dataclass(frozen=True, slots=True)
class VmlinuxH:
    """`path` is a file with BTF, or a header; None means each kernel's own BTF. `text` describes it."""

    path: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of `bpf_vmlinux`, which is not looked up yet.

    It is ``newest``, ``per-kernel``, ``host``, a name of the catalogue, or a path, which begins at `folder`.
    `run` are the run's kernels; some of them may be in no catalogue.
    """

    text: str = NEWEST
    folder: str = "."
    run: tuple[Kernel, ...] = ()

    def choose(self) -> VmlinuxH:
        """Looks the value up. Raises `VmError` for a name or path that means nothing."""
        if self.text == PER_KERNEL:
            return VmlinuxH(None, "of each kernel, which has objects of its own (per-kernel)")
        if self.text == NEWEST:
            return _newest(self.run)
        if self.text == HOST:
            return VmlinuxH(RUNNING, f"of the host ({os.uname().release})")
        path = Path(self.folder, self.text).expanduser()
        if "/" in self.text or path.exists():
            return VmlinuxH(str(_file(path)), f"from {self.text}")
        return _of(_named(self.text, self.run))


def _newest(run: Iterable[Kernel]) -> VmlinuxH:
    """Returns the newest of the running kernel, the catalogue and the run.

    So the object is always the same.
    """
    from pytest_bpfmaps.vm.kernels.catalogue import Catalogue, age

    catalogue = Catalogue()
    known = {k.release: k for k in (*catalogue, *run) if k.btf and k.arch == platform.machine()}
    without = "".join(f" without {name}, which is damaged" for name in catalogue.damaged())
    newest = max(known.values(), key=lambda k: age(k.release), default=None)
    host = os.uname().release
    if newest is not None and (age(newest.release) > age(host) or not os.path.exists(RUNNING)):
        return _of(newest, f", the newest{without}")
    return VmlinuxH(RUNNING, f"of the host ({host}), the newest{without}")


def _named(name: str, run: Iterable[Kernel]) -> Kernel:
    from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

    for kernel in run:
        if kernel.name == name:
            return kernel
    return Catalogue().get(name)


def _of(kernel: Kernel, more: str = "") -> VmlinuxH:
    if kernel.btf is None:
        raise VmError(
            "cannot make vmlinux.h",
            on=f"of kernel {kernel.name!r}",
            why="it has no BTF: it was built without CONFIG_DEBUG_INFO_BTF",
            fix=f"name another kernel, or a file: --bpf-vmlinux={NEWEST}",
        )
    from pytest_bpfmaps.vm.kernels.catalogue import check_content

    check_content(kernel, "btf")
    return VmlinuxH(str(kernel.btf), f"of {kernel.name} ({kernel.release}){more}")


def _file(path: Path) -> Path:
    found = path / "vmlinux.h" if path.is_dir() else path
    if found.is_file():
        return found.absolute()
    raise VmError(
        "cannot take vmlinux.h",
        on=f"from {path}",
        why="there is no such file",
        fix="name a header, a folder that has a vmlinux.h, or a file with raw BTF",
    )
