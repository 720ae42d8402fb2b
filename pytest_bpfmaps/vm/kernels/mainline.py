"""Fetches an upstream release, ``v6.6``: virtme-ng downloads the packages of a precompiled mainline kernel.

virtme-ng is run as a command. It keeps packages below the user's home folder. It also keeps an interrupted
download, and later takes it for whole. So it gets a home of its own, which is deleted at the end.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pytest_bpfmaps.cache import staging
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.paths import find_program
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue, check_name
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.kernels.kernel_tree import complete
from pytest_bpfmaps.vm.kernels.package import Package
from pytest_bpfmaps.vm.kernels.package_files import fingerprints, unpack_deb
from pytest_bpfmaps.vm.kernels.progress import Progress

VERSION = re.compile(r"v\d+(\.\d+)*(-rc\d+)?")  # what virtme-ng takes for an upstream release


def fetch(
    spec: str, catalogue: Catalogue, progress: Progress, name: str | None, pinned: Sequence[Package] | None
) -> tuple[Kernel, bool]:
    """Stores the upstream kernel `spec`, ``v6.6``. Returns it, and whether it is new; see `fetch.fetch`.

    Raises VmError: no virtme-ng, no such release, its server out of reach, half a download.
    """
    if name is not None:
        check_name(name)
    for kernel in catalogue:  # a release does not change
        if (
            kernel.source == spec
            and name in (None, kernel.name)
            and (pinned is None or tuple(pinned) == kernel.packages)
        ):
            return kernel, False
    vng = _find_vng(spec)
    with staging.staging(catalogue.root) as home:
        progress.step(f"{spec}: downloading with virtme-ng")
        said = _download(vng, spec, home)
        packages = _kernel_packages(spec, sorted(home.rglob("*.deb")), said)
        return catalogue.store(lambda tree: build(spec, packages, tree, progress, pinned), name), True


def _find_vng(spec: str) -> str:
    path = find_program("vng")
    if path is None:
        fix = "pip install 'pytest-bpfmaps[vm]'"
        why = "virtme-ng is not installed (no vng command)"
        raise VmError("cannot fetch kernel", on=repr(spec), why=why, fix=fix)
    return path


def _download(vng: str, spec: str, home: Path) -> str:
    """Has virtme-ng download below `home`, and returns its last line of output.

    Its exit code is that of a trial run of the kernel, which does not matter here.
    """
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONUSERBASE": site.getuserbase()}
    command = [vng, "--run", spec, "--dry-run"]
    if shutil.which("setpriv"):  # else a killed fetch leaves a download behind
        command = ["setpriv", "--pdeathsig", "TERM", "--", *command]
    done = subprocess.run(
        command,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        cwd=home,
        env={**os.environ, **places},
        check=False,
    )
    return next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")


def _kernel_packages(spec: str, found: Sequence[Path], said: str) -> list[Path]:
    """Returns those of the downloaded packages that make one kernel."""
    wanted = [p for p in found if "-lowlatency" not in p.name]
    if not wanted:
        raise VmError(
            "cannot fetch kernel",
            on=repr(spec),
            why="virtme-ng got no packages",
            details=said,
            fix="see whether there is such a version and its server can be reached: vng --run "
            f"{spec} --verbose --dry-run",
        )
    split = any(p.name.startswith("linux-image-unsigned-") for p in wanted)
    if split and not any(p.name.startswith("linux-modules-") for p in wanted):
        raise VmError(
            "cannot fetch kernel",
            on=repr(spec),
            why=f"of its packages only {', '.join(p.name for p in wanted)} were downloaded",
            details=said,
            fix="run the command again",
        )
    return wanted


def build(
    spec: str, files: list[Path], tree: Path, progress: Progress, pinned: Sequence[Package] | None = None
) -> None:
    """Fills the folder `tree` with the kernel in the packages `files`.

    Raises VmError when a package is damaged, or when they are not the `pinned` ones.
    """
    packages = fingerprints(files)
    if pinned is not None and sorted(pinned) != sorted(packages):
        raise VmError(
            "cannot fetch kernel",
            on=repr(spec),
            why="the packages are not those of the lock",
            details="\n".join(f"{p.sha256}  {p.name}" for p in packages),
            fix="the release was built again: fetch without --locked, then bpfmaps kernels lock",
        )
    for file in files:
        progress.step(f"{spec}: unpacking {file.name}")
        unpack_deb(file, tree)
    complete(tree, source=spec, packages=packages, progress=progress)
