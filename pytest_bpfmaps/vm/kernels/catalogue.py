"""The kernels that this machine has for guests, by name, in the user's cache folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path

from pytest_bpfmaps import paths
from pytest_bpfmaps.cache import staging
from pytest_bpfmaps.cache.stored_files import own, read_any, tell
from pytest_bpfmaps.errors import VmError, closest, remedy
from pytest_bpfmaps.vm.kernels import kernel_json
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.kernels.name_grammar import checked
from pytest_bpfmaps.vm.kernels.package import Package
from pytest_bpfmaps.vm.kernels.progress import Progress, Silent

# What a person who asks for a missing kernel most likely means: a Debian suite keeps one major.minor version.
_SUITES = {"5.10": "debian:bullseye", "6.1": "debian:bookworm", "6.12": "debian:trixie"}
# The errors that a damaged kernel may cause.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
_RESERVED = {"all", "auto", "host", "newest"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class Catalogue:
    """The kernels below `root` (default: `paths.kernels_dir`), one folder for each."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else own(paths.kernels_dir())

    def __iter__(self) -> Iterator[Kernel]:
        return iter(sorted(self._read(), key=lambda kernel: _natural(kernel.name)))

    def _read(self) -> Iterator[Kernel]:
        for name in self._names():
            with suppress(VmError):  # `damaged` reports it
                kernel = self._find(name)
                if kernel is not None:
                    yield kernel

    def damaged(self) -> dict[str, VmError]:
        """Returns what is wrong with stored kernels that can't be used, by name."""
        found = {}
        for name in self._names():
            try:
                self._find(name)
            except VmError as error:
                found[name] = error
        return found

    def _names(self) -> list[str]:
        return sorted({*self._folders(), *staging.locked_names(self.root)})

    def _folders(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return [p.name for p in self.root.iterdir() if not p.name.startswith(".")]

    def _find(self, name: str) -> Kernel | None:
        """Returns the kernel of that name, or None. Raises VmError for a damaged one."""
        with suppress(VmError):
            kernel = self._find_now(name)
            if kernel is not None:
                return kernel
        if name in staging.locked_names(self.root):
            with suppress(OSError), staging.name_lock(self.root, name):  # another process may be replacing it
                return self._find_now(name)
        return self._find_now(name)

    def _find_now(self, name: str) -> Kernel | None:
        tree = self.root / name
        if not _NAME.fullmatch(name) or not tree.is_dir():
            return None
        try:
            kernel_json.check(tree)
            return Kernel.read(tree)
        except _DAMAGE as error:
            if not tree.is_dir():  # another process has just removed it
                return None
            raise _damaged(tree, name, error) from error

    def names(self) -> list[str]:
        """Returns the names, oldest kernel first."""
        return [kernel.name for kernel in self]

    def get(self, name: str) -> Kernel:
        """Returns the kernel called `name`. Raises VmError, which names the known ones."""
        kernel = self._find(name)
        if kernel is None:
            raise self._unknown(name)
        return kernel

    def _unknown(self, name: str) -> VmError:
        known = self.names()
        hint = f"{closest(name, [*known, 'newest'])}; " if known else ""
        version = re.fullmatch(r"v?(\d+\.\d+(?:\.\d+)?(?:-rc\d+)?)", name)
        upstream = f"v{version[1]}" if version else "debian:bookworm"
        fix = f"{hint}get one with: bpfmaps kernels fetch {_SUITES.get(name, upstream)}"
        return VmError(
            "no kernel",
            on=repr(name),
            why=f"the catalogue has {', '.join(known) or 'none yet'}",
            fix=fix,
        )

    def select(self, pattern: str) -> list[Kernel]:
        """Returns the kernels that `pattern` means.

        It is a name, a glob, ``all``, ``newest``, ``newest:GLOB``, or a path to something that `add` takes. A
        path is not stored under a name. What is read out of it is kept in the cache until the path changes.
        Raises VmError when nothing fits.
        """
        if (kernel := self._find(pattern)) is not None:
            return [kernel]
        if "/" in pattern or (pattern not in {"", *_RESERVED} and Path(pattern).exists()):
            return [self._ad_hoc(_real(Path(pattern)))]
        first, colon, rest = pattern.partition(":")
        newest = first == "newest" and (rest or not colon)
        glob = (rest or "*") if newest else "*" if pattern == "all" else pattern
        for name, error in self.damaged().items():
            if fnmatchcase(name, glob):
                raise error
        found = [k for k in self if fnmatchcase(k.name, glob)]
        if not found:
            raise self._unknown(pattern)
        return [max(found, key=lambda k: age(k.release))] if newest else found

    def _ad_hoc(self, path: Path) -> Kernel:
        from pytest_bpfmaps.vm.kernels.local_kernel import fingerprint, import_path

        stamp = fingerprint(path)
        key = sha256(str(path).encode()).hexdigest()[:16]
        folder = self.root / ".ad-hoc"
        target = folder / key
        with staging.name_lock(self.root, f".ad-hoc-{key}"):
            if not (target / stamp).exists() or not _is_whole(target):
                with staging.staging(self.root) as stage:
                    import_path(path, stage / "tree", Silent())
                    (stage / "tree" / stamp).touch()
                    folder.mkdir(exist_ok=True)
                    staging.replace(stage / "tree", target, stage)
                    self._forget_ad_hoc(stage)
            kernel = Kernel.read(target)
        return Kernel(**{**vars(kernel), "name": kernel.release})

    def _forget_ad_hoc(self, trash: Path) -> None:
        """Moves away what was read out of paths that are gone."""
        for tree in (self.root / ".ad-hoc").iterdir():
            with suppress(OSError, ValueError, KeyError):
                if not Path(Kernel.read(tree).source).exists():
                    tree.rename(trash / tree.name)

    def add(
        self,
        path: Path,
        name: str | None = None,
        progress: Progress | None = None,
        more: Sequence[Path] = (),
    ) -> Kernel:
        """Stores the kernel at `path`: an image, a package, an unpacked package, or a kernel build tree.

        `more` are more packages of it. `name` is by default its major.minor version. Raises VmError when
        `path` is none of these, or when the name is taken.
        """
        from pytest_bpfmaps.vm.kernels.local_kernel import import_path

        path, *others = map(_real, (path, *more))
        if name is not None:
            check_name(name)
        return self.store(lambda tree: import_path(path, tree, progress or Silent(), others), name)

    def store(self, build: Callable[[Path], None], name: str | None = None) -> Kernel:
        """Stores the kernel that `build` puts into the (new) folder that it is given.

        Nobody ever sees half of it. It replaces a kernel of the same name and source. Raises VmError when the
        name belongs to a kernel from another source.
        """
        with staging.staging(self.root) as stage:
            tree = stage / "tree"
            tree.mkdir()
            build(tree)
            kernel = Kernel.read(tree)
            name = name or short_name(kernel.release)
            check_name(name)
            with staging.name_lock(self.root, name):
                self._check_free(name, kernel.source)
                staging.replace(tree, self.root / name, stage)
        return self.get(name)

    def stored(self, source: str, packages: Sequence[Package], name: str | None) -> Kernel | None:
        """Returns the kernel that was made of exactly these packages (and has `name`, if given), or None."""
        for kernel in self:
            if kernel.source == source and kernel.packages == tuple(packages) and name in (None, kernel.name):
                return kernel
        return None

    def _check_free(self, name: str, source: str) -> None:
        old = None
        with suppress(VmError):  # a damaged kernel is replaced
            old = self._find_now(name)
        if old is not None and old.source != source:
            raise VmError(
                "cannot store kernel",
                on=repr(name),
                why=f"that name belongs to {old.release} from {old.source}",
                fix=f"choose another with --name, or first: bpfmaps kernels remove {name}",
            )

    def remove(self, name: str) -> None:
        """Deletes the kernel called `name`. Raises VmError when there is none, or a run uses it."""
        if name not in self._folders():
            raise VmError(
                "no kernel", on=repr(name), why="nothing to remove", fix=closest(name, self.names())
            )
        with staging.staging(self.root) as stage, staging.name_lock(self.root, name):
            staging.move_away(self.root / name, stage, "cannot remove kernel")


def _is_whole(tree: Path) -> bool:
    """Returns whether a kernel that is not in the catalogue is unchanged."""
    try:
        kernel_json.check(tree)
        return bool(Kernel.read(tree))
    except _DAMAGE as error:
        tell(f"{tree} is made again: {_reason(error)}")
        return False


def check_content(kernel: Kernel, *wanted: str) -> None:
    """Compares parts of a stored kernel with what was stored, and repairs what can be repaired.

    See `kernel_json.check_content`. Raises VmError for damage that only a new fetch repairs.
    """
    tree = kernel.tree
    if not (tree / "kernel.json").exists():  # the catalogue did not store it
        return
    try:
        kernel_json.check_content(tree, *wanted)
    except _DAMAGE as error:
        raise _damaged(tree, kernel.name, error) from error


def _damaged(tree: Path, name: str, error: Exception) -> VmError:
    if isinstance(error, OSError) and (fix := remedy(error.errno, None)):
        why = f"its stored files can't be read: {_reason(error)}"
        return VmError("cannot use kernel", on=repr(name), why=why, fix=fix)
    return VmError(
        "cannot use kernel",
        on=repr(name),
        why=f"its stored files are damaged: {_reason(error)}",
        fix=f"get it again: {_command(tree, name)}",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{Path(str(error.filename)).name}: {error.strerror}"
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _command(tree: Path, name: str) -> str:
    """Returns the command that stores the kernel again, if its source can still be read."""
    source = ""
    with suppress(OSError, ValueError, LookupError):
        text = read_any(tree / "kernel.json").decode(errors="replace")
        source = checked("stored source", json.loads(re.findall(r'"source": ("[^"]*")', text)[0]))
    if source.startswith("/"):
        return f"bpfmaps kernels add {source} --name {name}"
    return f"bpfmaps kernels fetch {source or _SUITES.get(name, 'debian:bookworm')} --name {name}"


def short_name(release: str) -> str:
    """Returns ``6.1`` for ``6.1.0-13-amd64``."""
    match = re.match(r"\d+\.\d+", release)
    return match[0] if match else release


def check_name(name: str) -> None:
    """Raises VmError when `name` can't be a name in the catalogue."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise VmError(
            "cannot name a kernel",
            on=repr(name),
            why="a name has letters, digits and ._+- only, and is none of " + ", ".join(sorted(_RESERVED)),
            fix="choose another with --name",
        )


def age(release: str) -> tuple[list[int], bool, list[tuple[int, int, str]]]:
    """Returns a key that sorts releases, oldest first; ``6.9.0-rc1`` is older than ``6.9.0``."""
    numbers = re.match(r"[\d.]*", release)
    assert numbers is not None
    return [int(n) for n in re.findall(r"\d+", numbers[0])], "-rc" not in release, _natural(release)


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part
    ]


def _real(path: Path) -> Path:
    """Returns the path that a link leads to. `Path.resolve` raises RuntimeError for a loop of links."""
    return Path(os.path.realpath(path.expanduser()))
