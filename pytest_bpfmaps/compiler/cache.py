"""The object cache: finds the object that clang made for a request from the files that it read.

`manifests/KEY.json` is for one source with one set of options and one clang. It lists the objects that were
made, and the inputs of each. So the headers of an object are known before clang runs.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_bpfmaps.btf.dwarf import keep_local_types, kept_types
from pytest_bpfmaps.cache.stored_files import digest, discard, place, read, read_checked, write_checked
from pytest_bpfmaps.cache.unchanged_files import UnchangedFiles
from pytest_bpfmaps.compiler.build import Built
from pytest_bpfmaps.compiler.cache_in_use import steady, use
from pytest_bpfmaps.compiler.counting import facts_file, map_file
from pytest_bpfmaps.compiler.dependencies import FileState, Inputs
from pytest_bpfmaps.compiler.legacy_maps import upgrade_file
from pytest_bpfmaps.paths import PACKAGE

_MAKERS = ("compiler", "btf", "elf")  # the folders of this package that shape an object and its warnings
_REMEMBERED = 32  # objects per source and options: one per kernel's BTF and per state of the headers


@dataclass(frozen=True)
class CacheEntry:
    """One object in the cache."""

    name: str  # path below the cache's root
    digests: tuple[str, ...]  # of the object, and of the files that are kept beside it
    warnings: str
    btf: str | None  # digest of the BTF that vmlinux.h came from, if it was read
    inputs: Inputs


@functools.cache
def code_of_makers() -> str:
    """Returns a digest of the modules that make an entry, which is part of its key.

    So one version of this package does not use the objects and the warnings that another version made.
    """
    files = (file for folder in _MAKERS for file in _modules(PACKAGE / folder))
    return digest(*(part for file in files for part in (file.name, file.read_bytes())))


def _modules(folder: Path) -> Iterator[Path]:
    """Yields the modules below a folder. It skips bytecode, which other processes may write meanwhile."""
    for each in sorted(folder.iterdir()):
        if each.suffix == ".py":
            yield each
        elif each.name != "__pycache__" and each.is_dir():
            yield from _modules(each)


class ObjectCache:
    """Objects below `root`. An object that was found or added stays at least until this process ends."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known_entries: UnchangedFiles[tuple[CacheEntry, ...]] = UnchangedFiles()
        self._known_digests: UnchangedFiles[str] = UnchangedFiles()

    def find(self, key: str, btf: Callable[[], str | None]) -> CacheEntry | None:
        """Returns the object for `key` whose inputs are unchanged, if there is one.

        `btf` returns the digest of the target kernel's BTF. It is called only for objects that depend on it.
        """
        for entry in self._entries(key):
            if entry.btf is not None and entry.btf != btf():
                continue
            with steady(self.root):
                if entry.inputs.hold() and self._is_intact(entry):
                    use(self.root, _folder_of(self.root, entry.name), self._manifest(key))
                    return entry
        return None

    def add(self, key: str, stem: str, built: Built, btf: str | None, inputs: Inputs) -> CacheEntry:
        """Moves the object that clang made into the cache. Raises `OSError`."""
        upgrade_file(built.object)
        contents = [f"{file.path}={file.content}" for file in inputs.files]
        # A folder per object, because libbpf names the maps of .rodata and .bss after the object's file.
        name = f"{stem}-{digest(key, *contents)[:12]}/{stem}.bpf.o"
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        keep_local_types(built.object, target)
        for beside in (facts_file, map_file):  # of an object that counts
            with contextlib.suppress(FileNotFoundError):
                place(beside(built.object), beside(target))
        place(built.object, target)
        entry = CacheEntry(name, tuple(self._digests(name).values()), built.warnings, btf, inputs)
        others = [other for other in self._entries(key) if other.name != name]
        text = json.dumps([_to_plain(e) for e in (entry, *others[: _REMEMBERED - 1])])
        write_checked(self._manifest(key), text)
        use(self.root, target.parent, self._manifest(key))
        return entry

    def inputs_of(self, made: Path) -> tuple[FileState, ...]:
        """Returns the files that an object of this cache was made from; none for another object."""
        if not made.is_relative_to(self.root):
            return ()
        name = str(made.relative_to(self.root))
        manifests = list((self.root / "manifests").glob("*.json"))
        with contextlib.suppress(OSError):  # one may be removed meanwhile
            manifests.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in manifests:
            entries = self._entries(path.stem)
            if found := next((entry for entry in entries if entry.name == name), None):
                return found.inputs.files
        return ()

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Holds the lock for `key`: one process compiles, the others wait for its object."""
        from filelock import FileLock

        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / key).acquire(poll_interval=0.01):
            yield

    def path(self, entry: CacheEntry) -> Path:
        """Returns the path of an object."""
        return _files_of(self.root, entry.name)[0]

    def _manifest(self, key: str) -> Path:
        return _manifest_of(self.root, key)

    def _entries(self, key: str) -> tuple[CacheEntry, ...]:
        manifest = self._manifest(key)
        try:
            return self._known_entries.get(str(manifest), lambda: _read_entries(manifest))
        except OSError:  # no object was made yet
            return ()

    def _is_intact(self, entry: CacheEntry) -> bool:
        """Returns whether the object exists and is unchanged. A damaged one is removed, to be made again."""
        try:
            found = self._digests(entry.name)
        except OSError:
            return False
        if len(found) != len(entry.digests):
            return False
        for (path, now), then in zip(found.items(), entry.digests, strict=True):
            if now != then:
                discard(path)
                return False
        return True

    def _digests(self, name: str) -> dict[Path, str]:
        """Returns the digests of the object and of the files beside it.

        Raises `OSError` when there is no object.
        """
        made, *others = _files_of(self.root, name)
        found = {made: self._digest(made)}
        for beside in others:
            with contextlib.suppress(FileNotFoundError):
                found[beside] = self._digest(beside)
        return found

    def _digest(self, path: Path) -> str:
        return self._known_digests.get(str(path), lambda: digest(read(path)))


# Making a path takes as long as asking the kernel about it.
@functools.lru_cache(maxsize=256)
def _manifest_of(root: Path, key: str) -> Path:
    return root / "manifests" / f"{key}.json"


@functools.lru_cache(maxsize=256)
def _folder_of(root: Path, name: str) -> Path:
    return (root / name).parent


@functools.lru_cache(maxsize=256)
def _files_of(root: Path, name: str) -> tuple[Path, ...]:
    """Returns the path of an object of the cache, and of the files that may be beside it."""
    made = root / name
    return made, kept_types(made), facts_file(made), map_file(made)


def _read_entries(manifest: Path) -> tuple[CacheEntry, ...]:
    try:
        return tuple(_from_plain(plain) for plain in json.loads(read_checked(manifest) or "[]"))
    except (ValueError, KeyError, TypeError):  # another version of this package wrote it
        return ()


def _to_plain(entry: CacheEntry) -> dict[str, Any]:
    return {**vars(entry), "inputs": entry.inputs.to_plain()}


def _from_plain(plain: dict[str, Any]) -> CacheEntry:
    inputs, digests = Inputs.from_plain(plain["inputs"]), tuple(plain["digests"])
    return CacheEntry(**{**plain, "inputs": inputs, "digests": digests})
