"""``kernels.lock``: the kernels of a project, each pinned to exact packages and their hashes."""

from __future__ import annotations

import json
import platform
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_bpfmaps.cache.stored_files import read_any
from pytest_bpfmaps.errors import VmError, closest
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue, check_name
from pytest_bpfmaps.vm.kernels.fetch import fetch, fetchable
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.kernels.name_grammar import checked
from pytest_bpfmaps.vm.kernels.package import Package
from pytest_bpfmaps.vm.kernels.progress import Progress

DEFAULT = Path("kernels.lock")
_FORMAT = 1
_LOCAL_IMAGE = re.compile(r"oci:(?!//)(.*)")


@dataclass(frozen=True)
class Locked:
    """One kernel of a lock file: what `Kernel` says of it."""

    name: str
    source: str
    release: str
    arch: str
    packages: tuple[Package, ...]

    def is_in(self, kernel: Kernel) -> bool:
        """Returns whether a stored kernel is exactly this one."""
        return (kernel.source, kernel.release, sorted(kernel.packages)) == (
            self.source,
            self.release,
            sorted(self.packages),
        )

    def differences(self, kernel: Kernel) -> str:
        """Returns a sentence that says how a stored kernel differs from this one."""
        if kernel.source != self.source:
            return f"the stored kernel is from {kernel.source}, the locked one from {self.source}"
        return f"the stored kernel is {_described(kernel)}, the locked one is {_described(self)}"


def write(
    path: Path, catalogue: Catalogue, patterns: Sequence[str] = ()
) -> tuple[list[Kernel], list[Kernel]]:
    """Pins kernels of the catalogue in the file `path`. Returns these kernels, and those that can't be
    pinned.

    `patterns` are as for `Catalogue.select`. The default is the kernels that `path` has, else all. Raises
    VmError for a named kernel that could not be fetched again, and when there is none to pin.
    """
    wanted: Iterable[Kernel]
    if patterns:
        wanted = {k.name: k for pattern in patterns for k in catalogue.select(pattern)}.values()
    elif path.exists():
        wanted = [catalogue.get(locked.name) for locked in read(path)]
    else:
        for error in catalogue.damaged().values():
            raise error
        wanted = catalogue
    pinned: list[Kernel] = []
    others: list[Kernel] = []
    for kernel in wanted:
        (pinned if kernel.packages and fetchable(kernel.source) else others).append(kernel)
    if not pinned or (patterns and others):
        what = ", ".join(f"{k.name} is from {k.source}" for k in others) or "the catalogue is empty"
        fix = "lock kernels that were fetched: bpfmaps kernels fetch debian:bookworm"
        raise VmError("cannot lock kernels in", on=str(path), why=what, fix=fix)
    value = {"format": _FORMAT, "kernels": [_entry(kernel, path) for kernel in pinned]}
    path.write_text(json.dumps(value, indent=1) + "\n")
    return pinned, others


def _entry(kernel: Kernel, path: Path) -> dict[str, Any]:
    facts = kernel.to_json()
    entry = {field: facts[field] for field in ("name", "source", "release", "arch", "packages")}
    folder = f"{path.absolute().parent}/"
    if (image := _LOCAL_IMAGE.fullmatch(kernel.source)) and image[1].startswith(folder):
        # The path is relative, so that the project can move.
        entry["source"] = f"oci:{image[1].removeprefix(folder)}"
    return entry


def read(path: Path) -> list[Locked]:
    """Returns the kernels of the lock at `path`. Raises VmError for no lock, or one of another format."""
    try:
        value = json.loads(read_any(path))
        if value["format"] != _FORMAT:
            raise ValueError(f"its format is {value['format']}, and this version reads {_FORMAT}")
        if not value["kernels"]:
            raise ValueError("it lists no kernel")
        return [_locked(entry, path) for entry in value["kernels"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, OSError):
            why = error.strerror or why
        elif type(error) is ValueError:
            why = str(error)
        remove = "rm -r" if path.is_dir() else "rm"
        # Without this, the command would read the damaged file to renew it.
        delete = f"{remove} {shlex.quote(str(path))} && " if path.exists() else ""
        fix = f"make a new lock of the stored kernels: {delete}bpfmaps kernels lock"
        raise VmError("cannot read lock", on=str(path), why=why, fix=fix) from error


def _locked(entry: dict[str, Any], path: Path) -> Locked:
    source = checked("source", entry["source"])
    if image := _LOCAL_IMAGE.fullmatch(source):
        source = f"oci:{path.absolute().parent / image[1]}"
    packages = tuple(_checked_package(package) for package in entry["packages"])
    if not packages:
        raise ValueError(f"the entry of {entry['name']!r} has no package")
    release, arch = checked("kernel release", entry["release"]), checked("architecture", entry["arch"])
    return Locked(_checked_name(entry["name"]), source, release, arch, packages)


def _checked_package(facts: dict[str, Any]) -> Package:
    package = Package.from_json(facts)
    checked("name", package.name)
    checked("SHA-256", package.sha256)
    checked("version", package.version)
    return package


def _checked_name(name: object) -> str:
    try:
        check_name(text := checked("name", name))
    except VmError as error:
        raise ValueError(f"{name!r} can't name a kernel: {error.why}") from None
    return text


def choose(locked: list[Locked], names: Sequence[str]) -> list[Locked]:
    """Returns those called `names`, or all when there are no names. Raises VmError for an unknown name."""
    known = {kernel.name: kernel for kernel in locked}
    for name in names:
        if name not in known:
            raise VmError("no kernel", on=f"{name!r} in the lock", fix=closest(name, known))
    return [known[name] for name in names] if names else locked


def restore(locked: Locked, catalogue: Catalogue, progress: Progress) -> tuple[Kernel, bool]:
    """Stores exactly the kernel `locked`, unless it is stored. Returns it, and whether it is new.

    A stored kernel needs no network. Raises VmError when the kernel's source does not have it any more.
    """
    if locked.arch != platform.machine():
        why = f"it is for {locked.arch}, and this machine is {platform.machine()}"
        raise VmError("cannot use locked kernel", on=repr(locked.name), why=why)
    stored = next((kernel for kernel in catalogue if kernel.name == locked.name), None)
    if stored is not None:
        if locked.is_in(stored):
            return stored, False
        progress.done(f"{locked.name}: {locked.differences(stored)}")
    kernel, _ = fetch(locked.source, catalogue, progress, locked.name, locked.packages)
    if not locked.is_in(kernel):
        why = f"{locked.differences(kernel)}, although the packages are the same"
        raise VmError("cannot trust lock of", on=repr(locked.name), why=why, fix="bpfmaps kernels lock")
    return kernel, True


def _described(kernel: Kernel | Locked) -> str:
    versions = dict.fromkeys(package.version or package.sha256[:12] for package in kernel.packages)
    return f"{kernel.release} ({', '.join(versions)})"
