"""Fetches the kernel packages of a distribution into the catalogue."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from filelock import Timeout

from pytest_bpfmaps.cache import staging
from pytest_bpfmaps.errors import VmError, closest
from pytest_bpfmaps.vm.kernels import apt_sources
from pytest_bpfmaps.vm.kernels.apt import AptError, AptRoot, need_commands
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue, check_name
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.kernels.kernel_tree import complete
from pytest_bpfmaps.vm.kernels.name_grammar import checked
from pytest_bpfmaps.vm.kernels.package import Package
from pytest_bpfmaps.vm.kernels.package_files import sha256_of, unpack_deb
from pytest_bpfmaps.vm.kernels.progress import Progress

# The metapackage that follows a suite's current kernel. The -cloud kernels would not do: they lack 9p.
_METAPACKAGES = {"debian": "linux-image-{architecture}", "ubuntu": "linux-image-generic"}
_KEYRINGS = {"debian": "debian-archive-keyring", "ubuntu": "ubuntu-keyring"}
_SUITES = {
    "debian": ("bullseye", "bookworm", "trixie", "sid"),
    "ubuntu": ("focal", "jammy", "noble", "plucky", "questing", "resolute"),
}
_KERNEL_PACKAGE = re.compile(r"linux-(image|image-unsigned|base|binary|modules|modules-extra)-\d")


@dataclass(frozen=True)
class IndexedPackage:
    """A package as the signed index describes it; `size` packed and `installed` unpacked, in bytes."""

    package: Package
    size: int
    installed: int

    @property
    def name(self) -> str:
        """The package's name."""
        return self.package.name

    @property
    def version(self) -> str:
        """The package's version."""
        return self.package.version


def fetch(
    spec: str,
    catalogue: Catalogue,
    progress: Progress,
    name: str | None = None,
    pinned: Sequence[Package] | None = None,
) -> tuple[Kernel, bool]:
    """Stores the current kernel of `spec`, ``debian:bookworm``, or the `pinned` one.

    Returns it, and whether it is new. Uses the mirror and the keys of the system's own package sources.
    Raises VmError: unknown distribution or suite, mirror out of reach, a signature that can't be verified, no
    apt.
    """
    distribution, suite = _parse(spec)
    if name is not None:
        check_name(name)
    need_commands("apt-get", "apt-cache", "apt-config", "dpkg", "dpkg-deb")
    main, more = _sources(spec, distribution, suite)
    architecture = apt_sources.architecture()
    staging.remove_abandoned(catalogue.root)
    with _one_fetch(catalogue, spec, progress):
        apt = AptRoot(
            catalogue.root.absolute() / ".apt" / spec.replace(":", "-").replace("/", "-"), architecture
        )
        _update(apt, spec, main, more, progress)
        packages = _kernel_packages(apt, spec, _METAPACKAGES[distribution].format(architecture=architecture))
        if pinned is not None:
            packages = [_exactly(apt, spec, p, packages, _host(main)) for p in pinned]
        current = catalogue.stored(spec, [indexed.package for indexed in packages], name)
        if current is not None:
            return current, False
        _check_space(catalogue.root, packages)
        kernel = catalogue.store(lambda tree: _build(apt, spec, packages, tree, progress), name)
        return kernel, True


def _parse(spec: str) -> tuple[str, str]:
    distribution, colon, suite = spec.partition(":")
    examples = "write debian:bookworm, debian:sid, ubuntu:noble …; v6.6; oci:PATH or oci://REGISTRY/NAME:TAG"
    if not colon or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9./_-]*", suite) or ".." in suite:
        raise VmError("cannot fetch kernel", on=repr(spec), why="it is not DISTRIBUTION:SUITE", fix=examples)
    if distribution not in _METAPACKAGES:
        why = f"this command does not know the distribution {distribution!r}"
        raise VmError("cannot fetch kernel", on=repr(spec), why=why, fix=closest(distribution, _METAPACKAGES))
    return distribution, suite


def _sources(
    spec: str, distribution: str, suite: str
) -> tuple[apt_sources.AptSource, list[apt_sources.AptSource]]:
    mine = apt_sources.archive_of(distribution)
    if not mine:
        keys, title = apt_sources.keyring(distribution), distribution.title()
        raise VmError(
            "cannot fetch kernel",
            on=repr(spec),
            why=f"none of this system's package sources is an archive of {title}",
            fix=f"install python-apt-common, which says where it is, and its keys, {keys} (of {title}'s "
            f"package {_KEYRINGS[distribution]}); or bring its package here: bpfmaps kernels add FILE.deb",
        )
    return apt_sources.for_suite(mine, distribution, suite)


def _one_fetch(catalogue: Catalogue, spec: str, progress: Progress) -> AbstractContextManager[object]:
    """Takes the lock on the private apt of `spec`. Else two fetches of one suite would do the same work."""
    lock = staging.name_lock(catalogue.root, ".fetch-" + spec.replace(":", "-").replace("/", "-"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        progress.step(f"{spec}: waiting for another fetch of it")
        return lock.acquire()


def _update(
    apt: AptRoot,
    spec: str,
    main: apt_sources.AptSource,
    more: list[apt_sources.AptSource],
    progress: Progress,
) -> None:
    wanted = [main, *more]
    step = f"{spec}: reading the package lists of {_host(main)}"
    try:
        try:
            apt.update(wanted, progress, step)
        except AptError as error:
            missing = error.missing()
            if not missing or main.suite in missing:
                raise
            apt.update([s for s in wanted if s.suite not in missing], progress, step)
    except AptError as error:
        if main.suite in error.missing():
            shutil.rmtree(apt.root)  # nothing in it can be used again
        raise _explain(error, spec, main) from error
    apt.note_lists()
    distribution = spec.partition(":")[0]
    origins = {origin.lower() for origin in apt.origins()}
    if origins != {distribution}:
        what = "is not an archive of" if origins else "has no package index for main of"
        why = f"the mirror {_host(main)} {what} {distribution.title()}"
        raise VmError(
            "cannot fetch kernel", on=repr(spec), why=why, fix="look at this system's package sources"
        )


def _explain(error: AptError, spec: str, main: apt_sources.AptSource) -> VmError:
    distribution, _, suite = spec.partition(":")
    if suite in error.missing():
        why = f"the mirror {_host(main)} has no suite {suite!r}"
        fix = closest(suite, _SUITES[distribution])
        return VmError("cannot fetch kernel", on=repr(spec), why=why, fix=fix)
    if since := error.expired():
        why = f"the index of {suite!r} on {_host(main)} is out of date (no longer valid since {since})"
        fix = (
            "the mirror gets no updates; to use what it has, write 'Acquire::Check-Valid-Until \"false\";' "
            "into /etc/apt/apt.conf.d/99check-valid-until"
        )
    elif error.unsigned():
        keys = main.signed_by or "apt's trusted.gpg.d"
        why = f"the signature of {suite!r} can't be verified with the keys in {keys}"
        fix = f"install a {distribution}-archive-keyring package that knows that suite's key"
    else:
        why = f"the mirror {_host(main)} can't be reached, or its answer can't be used"
        fix = "see whether `apt-get update` works here; kernels that are stored already need no network"
    return VmError("cannot fetch kernel", on=repr(spec), why=why, fix=fix, details=str(error))


def _host(source: apt_sources.AptSource) -> str:
    return urlsplit(source.uri).netloc.rpartition("@")[2] or source.uri


def _kernel_packages(apt: AptRoot, spec: str, metapackage: str) -> list[IndexedPackage]:
    """Returns the packages of the image and its modules: those that the metapackage leads to."""
    found: dict[str, IndexedPackage] = {}
    todo = [metapackage]
    while todo:
        fields = apt.show(todo.pop())
        if fields is None:
            continue
        name = fields["Package"]
        if name != metapackage:
            found[name] = _package(fields)
        todo += [n for n in _dependencies(fields) if _KERNEL_PACKAGE.match(n) and n not in found]
    if not found:
        raise VmError("cannot fetch kernel", on=repr(spec), why=f"the suite has no package {metapackage}")
    return sorted(found.values(), key=lambda package: package.name)


def _package(fields: dict[str, str]) -> IndexedPackage:
    size, installed = int(fields["Size"]), int(fields.get("Installed-Size", 0)) * 1024
    try:
        package = Package(
            name=checked("package name", fields["Package"]),
            sha256=checked("SHA-256", fields["SHA256"]),
            version=checked("package version", fields["Version"]),
        )
        return IndexedPackage(package, size, installed)
    except ValueError as error:
        fix = "look at this system's package sources"
        raise VmError("cannot trust a package index", why=str(error), fix=fix) from None


def _exactly(
    apt: AptRoot, spec: str, wanted: Package, current: list[IndexedPackage], host: str
) -> IndexedPackage:
    """Returns the package with this name, version and hash. Raises VmError when the archive lacks it now."""
    try:
        name, version = checked("package name", wanted.name), checked("package version", wanted.version)
    except ValueError as error:
        fix = "look at who changed kernels.lock; make it again with: bpfmaps kernels lock"
        raise VmError("cannot fetch locked package", on=f"of {spec}", why=str(error), fix=fix) from None
    fields = apt.show(f"{name}={version}")
    if fields is not None and fields["SHA256"] == wanted.sha256:
        return _package(fields)
    now = ", ".join(f"{package.name} {package.version}" for package in current)
    if fields is not None:
        now = f"one of that version with SHA-256 {fields['SHA256']}, not {wanted.sha256}"
    raise VmError(
        "cannot fetch locked package",
        on=f"{wanted.name} {wanted.version}",
        why=f"{host} has now {now}",
        fix=f"take that (bpfmaps kernels fetch {spec}) and lock it (bpfmaps kernels lock), or have a mirror "
        "that keeps old versions in this system's package sources",
    )


def _dependencies(fields: dict[str, str]) -> Iterator[str]:
    for field in ("Pre-Depends", "Depends"):
        for clause in fields.get(field, "").split(","):
            if clause.strip():
                yield (
                    clause.split("|")[0].split()[0].partition(":")[0]
                )  # the archive's own choice comes first


def _check_space(folder: Path, packages: list[IndexedPackage]) -> None:
    vmlinux = 150 << 20  # a generous size of the unpacked image and the BTF
    needed = sum(p.size + p.installed for p in packages) + vmlinux
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise VmError(
            "cannot store kernel",
            on=str(folder),
            why=f"it needs {round(needed / 1e6)} MB for a while, and {round(free / 1e6)} MB are free",
            fix="free some space, or set BPFMAPS_CACHE to a folder on another disk",
        )


def _build(apt: AptRoot, spec: str, packages: list[IndexedPackage], tree: Path, progress: Progress) -> None:
    for package in packages:
        step = f"{spec}: getting {package.name} {package.version} ({package.size / 1e6:.0f} MB)"
        try:
            file = apt.download(package.name, package.version, tree, progress, step)
        except AptError as error:
            fix = "run the command again; a mirror may change while it is read"
            raise VmError(
                "cannot fetch", on=package.name, why="apt failed", details=str(error), fix=fix
            ) from error
        _check_hash(file, package.package)
        _unpack(file, tree, package, f"{spec}: unpacking {package.name}", progress)
        file.unlink()
    complete(tree, source=spec, packages=[indexed.package for indexed in packages], progress=progress)


def _check_hash(file: Path, package: Package) -> None:
    """Compares the hash with the index once more; apt has done so when it downloaded."""
    if (actual := sha256_of(file)) != package.sha256:
        why = f"its SHA-256 is {actual}, and not {package.sha256}"
        fix = "run the command again; a mirror may change while it is read"
        raise VmError("cannot trust", on=f"{package.name} {package.version}", why=why, fix=fix)


def _unpack(file: Path, tree: Path, package: IndexedPackage, step: str, progress: Progress) -> None:
    unpacked = 0

    def count(size: int) -> None:
        nonlocal unpacked
        unpacked += size
        progress.step(step, min(100.0, 100 * unpacked / max(package.installed, 1)))

    unpack_deb(file, tree, count)
