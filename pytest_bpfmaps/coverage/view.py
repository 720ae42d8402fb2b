"""The part of a coverage that reports show: the wanted files, without excluded lines, and their sums."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from pytest_bpfmaps.cache.stored_files import digest
from pytest_bpfmaps.coverage.data import Branch, Coverage, FileCoverage, Measured
from pytest_bpfmaps.coverage.decisions import Judged, judged
from pytest_bpfmaps.coverage.exclusions import excluded_lines

_GENERATED = ("vmlinux.h",)


@dataclass(frozen=True)
class FileView:
    """A source file: the sum of its counts, and those on each kernel. `name` is relative to the root folder.

    `text` are its lines; it is empty if the file can't be read. The counts have neither `excluded` lines nor
    those that no kernel can reach (`unreachable`). The counts of a kernel have only lines that it can reach.
    """

    path: str
    name: str
    text: Sequence[str]
    total: FileCoverage
    kernels: dict[str, FileCoverage]
    excluded: set[int]
    unreachable: set[int]

    @cached_property
    def missing(self) -> list[int]:
        """Returns the lines that did not run."""
        return sorted(line for line, count in self.total.lines.items() if not count)

    @property
    def percent(self) -> float:
        """Returns the percentage of the lines that ran; 100 where there is none."""
        return percent_of(self.total)

    def branches(self) -> dict[int, list[tuple[Branch, int]]]:
        """Returns for each line its branches, and how often each was taken."""
        found: dict[int, list[tuple[Branch, int]]] = {}
        for branch, count in sorted(self.total.branches.items()):
            found.setdefault(branch.line, []).append((branch, count))
        return found

    @cached_property
    def decisions(self) -> list[Judged]:
        """Returns the decisions of several conditions, by place; empty if MC/DC was not recorded."""
        return judged(self.total)

    def partial(self) -> list[int]:
        """Returns the lines that ran, and have a branch that was never taken."""
        missed = {branch.line for branch, count in self.total.branches.items() if not count}
        return sorted(line for line in missed if self.total.lines.get(line))


@dataclass
class View:
    """The files of a coverage that fit one of `patterns`: globs of paths relative to `root`, or of names.

    Without patterns it has the files below `root`, except vmlinux.h.
    """

    coverage: Coverage
    root: Path
    patterns: Sequence[str] = ()
    tell: Callable[[str], None] = field(default=lambda text: None)

    @cached_property
    def files(self) -> list[FileView]:
        """Returns the files, by name."""
        names = {path: os.path.relpath(path, self.root) for path in self.coverage.paths()}
        wanted = [path for path, name in names.items() if self._is_wanted(path, name)]
        return [self._file(path, names[path]) for path in sorted(wanted, key=names.__getitem__)]

    @property
    def kernels(self) -> list[str]:
        """Returns the names of the kernels that something was counted on, the host first."""
        return sorted(self.coverage.kernels, key=_by_version)

    @property
    def total(self) -> FileCoverage:
        """Returns the counts of all files together. Only their sums have a meaning."""
        return _all(file.total for file in self.files)

    @property
    def percent(self) -> float:
        """Returns the percentage of all lines that ran."""
        return percent_of(*(file.total for file in self.files))

    @property
    def has_conditions(self) -> bool:
        """Whether the values of conditions were recorded (MC/DC)."""
        return any(file.total.decisions or file.total.unmeasured for file in self.files)

    def percent_on(self, kernel: str) -> float:
        """Returns the percentage that ran on a kernel, of the lines that are code there."""
        return percent_of(*(file.kernels[kernel] for file in self.files if kernel in file.kernels))

    def not_measured(self) -> list[tuple[Measured, list[str]]]:
        """Returns the programs that no engine measured, with the kernels."""
        found: dict[Measured, list[str]] = {}
        for name in self.kernels:
            for program in self.coverage.kernels[name].not_measured():
                found.setdefault(program, []).append(name)
        return sorted(found.items())

    def engines(self) -> dict[str, int]:
        """Returns how many programs each engine measured."""
        done = {
            (p.engine, p.object, p.program)
            for k in self.coverage.kernels.values()
            for p in k.programs
            if p.engine
        }
        return {name: sum(one[0] == name for one in done) for name in sorted({one[0] for one in done})}

    def tests_of(self, path: str) -> dict[int, set[str]]:
        """Returns for each line the tests that ran it; empty if tests were not told apart."""
        found: dict[int, set[str]] = {}
        for kernel in self.coverage.kernels.values():
            for test, ran in kernel.contexts.items():
                for line in ran.get(path, ()):
                    found.setdefault(line, set()).add(test)
        return found

    def _is_wanted(self, path: str, name: str) -> bool:
        if not self.patterns:
            return not name.startswith("..") and os.path.basename(name) not in _GENERATED
        base = os.path.basename(path)
        return any(fnmatchcase(each, pattern) for pattern in self.patterns for each in (name, base, path))

    def _file(self, path: str, name: str) -> FileView:
        text = self._text(path, name)
        excluded = excluded_lines(text)
        kernels = {
            kernel: _without(file, excluded)
            for kernel in self.kernels
            if (file := self.coverage.kernels[kernel].files.get(path)) is not None
        }
        total = _all(kernels.values())
        unreachable = _never_ran(total, total.unreachable())
        reached = {
            kernel: _without(one, _never_ran(one, one.unreachable())) for kernel, one in kernels.items()
        }
        return FileView(
            path, name, text, _without(total, unreachable), reached, excluded, unreachable - excluded
        )

    def _text(self, path: str, name: str) -> list[str]:
        try:
            raw = Path(path).read_bytes()
        except OSError as e:
            self.tell(f"{name}: its lines can't be shown: {e.strerror}")
            return []
        known = self.coverage.merged(path).sources
        if known and digest(raw) not in known:
            self.tell(f"{name} has changed since it was compiled: lines may be off\n  -> run the tests again")
        elif len(known) > 1:
            self.tell(
                f"{name} was compiled with different contents: lines may be off\n  -> run the tests again"
            )
        return raw.decode(errors="surrogateescape").splitlines()


def percent_of(*files: FileCoverage) -> float:
    """Returns the percentage of their lines that ran; 100 where there is none."""
    lines = [count for file in files for count in file.lines.values()]
    return 100.0 * sum(map(bool, lines)) / len(lines) if lines else 100.0


def _all(files: Iterable[FileCoverage]) -> FileCoverage:
    total = FileCoverage()
    for file in files:
        total.add(file)
    return total


def _never_ran(file: FileCoverage, lines: set[int]) -> set[int]:
    return {line for line in lines if not file.lines.get(line)}


def _without(file: FileCoverage, lines: set[int]) -> FileCoverage:
    """Returns a file's counts without those of some lines."""
    if not lines:
        return file
    return FileCoverage(
        lines={line: n for line, n in file.lines.items() if line not in lines},
        branches={key: n for key, n in file.branches.items() if key.line not in lines},
        functions={key: n for key, n in file.functions.items() if key.line not in lines},
        regions={key: n for key, n in file.regions.items() if key.line not in lines},
        decisions={key: n for key, n in file.decisions.items() if key.line not in lines},
        unmeasured={key: n for key, n in file.unmeasured.items() if key.line not in lines},
        alive=file.alive,
        dead=file.dead,
        sources=file.sources,
    )


def _by_version(name: str) -> tuple[bool, list[tuple[int, str]]]:
    parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]
    return name != "host", parts
