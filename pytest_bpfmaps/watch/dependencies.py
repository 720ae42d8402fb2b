"""Decides what to run after a change, by what the runs before have used."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

C_FILES = (".c", ".h")
WATCHED = (".py", ".o", *C_FILES)


@dataclass(frozen=True)
class Plan:
    """What to run: everything, or whole `files` and some `tests` (names without a kernel) of other files.

    `arguments` are all these files.
    """

    everything: bool = False
    files: frozenset[Path] = frozenset()
    tests: frozenset[str] = frozenset()
    arguments: frozenset[Path] = frozenset()

    def __bool__(self) -> bool:
        return self.everything or bool(self.arguments)


EVERYTHING = Plan(everything=True)


@dataclass
class Record:
    """What a run has told: its test files, what they used, and what they imported."""

    files: dict[str, str] = field(default_factory=dict)  # absolute path -> its part of a node id
    uses: list[Sequence[str]] = field(default_factory=list)  # user, source, object
    modules: list[str] = field(default_factory=list)  # files of modules
    names: list[str] = field(default_factory=list)  # all modules
    guests: list[list[str]] = field(default_factory=list)  # the arguments of each guest's start
    taken: list[str] = field(default_factory=list)  # the addresses of guests that had waited
    interrupted: bool = False  # by Ctrl-C
    debugged: bool = False

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Record:
        """Returns the record that `vars` made plain."""
        return cls(**plain)


class Dependencies:
    """Knows what depends on a file. `inputs_of` returns the files that an object was made from.

    `written` are folders that runs write into. A change there is not one of a person.
    """

    def __init__(self, inputs_of: Any, written: Iterable[Path] = ()) -> None:
        self._inputs_of = inputs_of
        self._written = tuple(written)
        self._files: dict[Path, str] = {}
        self._users: dict[str, set[Path]] = {}  # files that each user's objects were made from
        self._failed: set[str] = set()  # users of a source that could not be compiled
        self._modules: set[Path] = set()

    def learn(self, record: Record) -> None:
        """Takes over what a run has told. What tests used that did not run this time stays known."""
        self._files |= {Path(path): name for path, name in record.files.items()}
        self._modules |= set(map(Path, record.modules))
        new: dict[str, set[Path]] = {}
        failed = set()
        for user, source, made in record.uses:
            found = new.setdefault(user, set())
            found.add(Path(source))
            if made:
                found.update(self._inputs_of(Path(made)))
            else:
                failed.add(user)
        self._failed = (self._failed - set(new)) | failed
        for user in failed:  # the headers of the last object are likely to be those of the next one
            new[user] |= self._users.get(user, set())
        self._users |= new

    def outside(self, folders: Iterable[str]) -> set[str]:
        """Returns the folders of inputs that are in none of `folders`, as far as they still exist."""
        inputs = {path for paths in self._users.values() for path in paths if path.is_absolute()}
        known: tuple[str | Path, ...] = (*folders, *self._written)
        found = {path.parent for path in inputs if not any(path.is_relative_to(folder) for folder in known)}
        return {str(folder) for folder in found if folder.is_dir()}

    def knows(self, path: Path) -> bool:
        """Returns whether a run has used the file."""
        used = any(path in paths for paths in self._users.values())
        return used or path in self._files or path in self._modules

    def counts(self, path: Path) -> bool:
        """Returns whether a change of the file is one that tests may notice."""
        if path.name.startswith("."):  # of an editor
            return False
        if any(map(path.is_relative_to, self._written)):
            return False
        if path.suffix in WATCHED and (path.exists() or path.is_symlink()):
            return True
        return self.knows(path)

    def expand(self, changed: Iterable[Path]) -> list[Path]:
        """Returns the files that count; in place of a folder those that are, or were, in it."""
        found: dict[Path, None] = {}
        for path in changed:
            if path.is_dir():
                inside: Iterable[Path] = (p for p in path.rglob("*") if p.suffix in WATCHED)
            elif path.exists():
                inside = [path]
            else:
                inside = [path, *(each for each in self._all() if path in each.parents)]
            found |= {each: None for each in inside if self.counts(each)}
        return list(found)

    def _all(self) -> set[Path]:
        return {*self._files, *self._modules}.union(*self._users.values())

    def plan(self, changed: Iterable[Path]) -> Plan:
        """Returns what to run after these files have changed."""
        if not self._files:  # no run has got so far
            return EVERYTHING
        files: set[Path] = set()
        users: set[str] = set()
        for path in changed:
            found = {user for user, inputs in self._users.items() if path in inputs}
            if path.suffix in C_FILES:
                users |= self._failed
            if "" in found:  # an object of the whole run
                return EVERYTHING
            users |= found
            if path in self._files:
                files |= {path} if path.exists() else set()
            elif path.name == "conftest.py":
                files |= {file for file in self._files if file.is_relative_to(path.parent)}
            elif not found:
                return EVERYTHING
        paths = {name: path for path, name in self._files.items()}
        files |= {paths[user] for user in users if user in paths}
        tests = {user for user in users if user not in paths}
        more = {paths.get(test.partition("::")[0]) for test in tests} - {None}
        arguments = {path for path in files | more if path is not None and path.exists()}
        return Plan(files=frozenset(files), tests=frozenset(tests), arguments=frozenset(arguments))


def narrowed(arguments: Sequence[str], wanted: Iterable[Path], folder: Path) -> list[str]:
    """Returns the parts of pytest's `arguments`, relative to `folder`, that are about the `wanted` files."""
    made: list[str] = []
    for argument in arguments:
        path, test, _ = argument.partition("::")
        place = Path(os.path.abspath(folder / path))
        inside = [file for file in sorted(wanted) if file.is_relative_to(place)]
        if inside and (test or place in inside):
            made.append(argument)
        else:
            made += map(str, inside)
    return list(dict.fromkeys(made))
