"""What was counted: by kernel, by test, by source file. Engines fill it, reports read it.

A `Coverage` has sums: adding two gives what one run of both would have counted. So it does not matter in
which order tests, workers, kernels and runs are added. It can be written as JSON, so a guest can send it to
the host, and the next run can add to it.

A file has a count for each line, branch and so on. A count of 0 means code that did not run. A line without a
count is no code, or the compiler removed it.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Self, TypeVar

FORMAT = 1  # of the plain values; what has another number is refused

Key = TypeVar("Key", bound=Hashable)


class Branch(NamedTuple):
    """One way out of a condition.

    `condition` identifies a condition of the line: its columns, ``"9-14"``, where the engine knows them, else
    a number. `outcome` is ``"true"`` or ``"false"``, or where the jump goes: ``"jumps"``, ``"goes on"``.
    """

    line: int
    condition: str
    outcome: str


class Function(NamedTuple):
    """A function, by the line that it begins in, counted from 1."""

    name: str
    line: int


class Region(NamedTuple):
    """A part of the source, from one place to another; lines and columns are counted from 1."""

    line: int
    column: int
    end_line: int
    end_column: int


class Decision(NamedTuple):
    """A decision of several conditions, with one combination of their values that was seen (MC/DC).

    `place` is where it begins and ends, ``"8:6-8:27"`` (lines and columns). `conditions` has the place where
    each begins, ``"8:7 8:16"``. `use` identifies one use of a macro; it is empty elsewhere. `vector` has a
    letter for each condition, and the result: ``"TF=F"``. ``-`` is a condition that was not evaluated, ``C``
    one that clang knows to be constant. An empty `vector` stands for the decision itself; its count is 0.
    """

    line: int
    place: str
    conditions: str
    use: str
    vector: str


class Unmeasured(NamedTuple):
    """A decision whose conditions the compiler does not record, with the reason."""

    line: int
    reason: str


class Measured(NamedTuple):
    """A program that was loaded, and the engine that measures it.

    If no engine does, `engine` is empty, and `reason` says why.
    """

    object: str
    program: str
    engine: str
    reason: str = ""


@dataclass
class FileCoverage:
    """The counts of one source file on one kernel.

    `alive` and `dead` are lines that depend on the kernel (``bpf_core_field_exists``): in how many loads the
    line could be reached, and in how many not. `sources` are digests of the file's text as it was compiled,
    with the number of objects.
    """

    lines: dict[int, int] = field(default_factory=dict)
    branches: dict[Branch, int] = field(default_factory=dict)
    functions: dict[Function, int] = field(default_factory=dict)
    regions: dict[Region, int] = field(default_factory=dict)
    decisions: dict[Decision, int] = field(default_factory=dict)
    unmeasured: dict[Unmeasured, int] = field(default_factory=dict)
    alive: dict[int, int] = field(default_factory=dict)
    dead: dict[int, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)

    def add(self, other: FileCoverage) -> None:
        """Adds the counts of another."""
        for each in fields(self):
            add_counts(getattr(self, each.name), getattr(other, each.name))

    def unreachable(self) -> set[int]:
        """Returns the lines that could be reached in no load."""
        return {line for line, loads in self.dead.items() if loads and not self.alive.get(line)}

    def to_plain(self) -> dict[str, Any]:
        """Returns lists of keys and counts.

        For example ``{"lines": [[12, 3]], "branches": [[12, "9-14", "true", 1]], …}``.
        """
        plain: dict[str, list[list[Any]]] = {}
        for each in fields(self):
            counts: dict[Any, int] = getattr(self, each.name)
            if counts:
                plain[each.name] = [[*_parts(key), count] for key, count in sorted(counts.items())]
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Returns the counts from `to_plain`'s values.

        Raises `ValueError`, `TypeError`, `AttributeError` or `LookupError` for other values.
        """
        made = cls()
        for name, rows in plain.items():
            kind, counts = _KINDS.get(name), getattr(made, name)
            for *parts, count in rows:
                key = kind(*parts) if kind else parts[0]
                counts[key] = counts.get(key, 0) + _count(count)
        return made


_KINDS: dict[str, Any] = {
    "branches": Branch,
    "functions": Function,
    "regions": Region,
    "decisions": Decision,
    "unmeasured": Unmeasured,
}

Lines = dict[str, dict[int, int]]
"""The lines that ran, and how often, by path."""


@dataclass
class KernelCoverage:
    """What was counted on one kernel.

    `files` are by absolute path. `contexts` are by the test's id, without its kernel: only lines that ran.
    `programs` count the loads.
    """

    files: dict[str, FileCoverage] = field(default_factory=dict)
    contexts: dict[str, Lines] = field(default_factory=dict)
    programs: dict[Measured, int] = field(default_factory=dict)

    def add(self, other: KernelCoverage) -> None:
        """Adds the counts of another."""
        for path, file in other.files.items():
            self.file(path).add(file)
        for test, lines in other.contexts.items():
            mine = self.contexts.setdefault(test, {})
            for path, counts in lines.items():
                add_counts(mine.setdefault(path, {}), counts)
        add_counts(self.programs, other.programs)

    def file(self, path: str) -> FileCoverage:
        """Returns the counts of a file, and makes them if there are none yet."""
        return self.files.setdefault(path, FileCoverage())

    def not_measured(self) -> Iterator[Measured]:
        """Returns the programs that no engine measured in any load on this kernel."""
        done = {(each.object, each.program) for each in self.programs if each.engine}
        return (p for p in self.programs if not p.engine and (p.object, p.program) not in done)

    def withdraw(self, engine: str, objects: Container[str], reason: str) -> None:
        """Lists the programs of these objects as not measured, if `engine` was to measure them."""
        for program in [p for p in self.programs if p.engine == engine and p.object in objects]:
            add_counts(
                self.programs,
                {program._replace(engine="", reason=reason): self.programs.pop(program)},
            )

    def to_plain(self) -> dict[str, Any]:
        """Returns plain values, see `Coverage.to_plain`."""
        return {
            "files": {path: file.to_plain() for path, file in sorted(self.files.items())},
            "contexts": {
                test: {path: [list(one) for one in sorted(lines.items())] for path, lines in ran.items()}
                for test, ran in sorted(self.contexts.items())
            },
            "programs": [[*program, loads] for program, loads in sorted(self.programs.items())],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Returns the counts from `to_plain`'s values. Raises what `FileCoverage.from_plain` raises."""
        made = cls()
        for path, file in plain.get("files", {}).items():
            made.files[path] = FileCoverage.from_plain(file)
        for test, ran in plain.get("contexts", {}).items():
            made.contexts[test] = {
                path: {int(line): _count(count) for line, count in lines} for path, lines in ran.items()
            }
        for *program, loads in plain.get("programs", ()):
            made.programs[Measured(*program)] = _count(loads)
        return made


@dataclass
class Coverage:
    """Everything that was counted, by the kernel's name (``host``, ``6.1``)."""

    kernels: dict[str, KernelCoverage] = field(default_factory=dict)

    def kernel(self, name: str) -> KernelCoverage:
        """Returns the counts of a kernel, and makes them if there are none yet."""
        return self.kernels.setdefault(name, KernelCoverage())

    def add(self, other: Coverage) -> None:
        """Adds the counts of another: of another worker, kernel, or run."""
        for name, kernel in other.kernels.items():
            self.kernel(name).add(kernel)

    def paths(self) -> list[str]:
        """Returns the files of all kernels, sorted."""
        return sorted({path for kernel in self.kernels.values() for path in kernel.files})

    def merged(self, path: str, kernels: Iterable[str] | None = None) -> FileCoverage:
        """Returns the sum of a file's counts over the named kernels (default: all)."""
        total = FileCoverage()
        for name in self.kernels if kernels is None else kernels:
            if name in self.kernels and path in self.kernels[name].files:
                total.add(self.kernels[name].files[path])
        return total

    def to_plain(self) -> dict[str, Any]:
        """Returns the counts in types that JSON and execnet can carry. Keys become lists."""
        kernels = {name: kernel.to_plain() for name, kernel in sorted(self.kernels.items())}
        return {"format": FORMAT, "kernels": kernels}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Returns the counts from `to_plain`'s values. Raises what `FileCoverage.from_plain` raises."""
        if not isinstance(plain, Mapping) or plain.get("format") != FORMAT:
            raise ValueError(f"it is no coverage data of format {FORMAT}")
        kernels = plain["kernels"].items()
        return cls({name: KernelCoverage.from_plain(kernel) for name, kernel in kernels})


def add_counts(mine: dict[Key, int], more: Mapping[Key, int]) -> None:
    """Adds counts to `mine`. Unlike in a `Counter`, a key whose count is 0 stays."""
    for key, count in more.items():
        mine[key] = mine.get(key, 0) + count


def _parts(key: Any) -> tuple[Any, ...]:
    return tuple(key) if isinstance(key, tuple) else (key,)


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
