"""Turns counters into lines: writes a profile for each object, and reads what llvm-cov makes of it."""

from __future__ import annotations

import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from pytest_bpfmaps.cache.stored_files import digest, read_checked, write_checked
from pytest_bpfmaps.compiler.counters_ir import Counters
from pytest_bpfmaps.compiler.counting import Facts, facts_file, map_file
from pytest_bpfmaps.coverage.counters.batches import divide
from pytest_bpfmaps.coverage.counters.exported import last_lines, read_decisions, read_export, read_lines
from pytest_bpfmaps.coverage.counters.llvm_tools import LlvmTools, export, profiled, run_tool
from pytest_bpfmaps.coverage.counters.shown import read_shown, write_blank
from pytest_bpfmaps.coverage.data import Coverage, FileCoverage, KernelCoverage, Unmeasured, add_counts
from pytest_bpfmaps.coverage.engines import Record
from pytest_bpfmaps.errors import BpfError

_KINDS = ("lines", "branches", "functions", "regions")
_LARGE = 1 << 40
NOT_READ = "counters: its counts could not be turned into lines"
_Possible = dict[str, dict[str, set[Any]]]
"""The keys that can have a count, by file and kind."""


def resolve(records: Sequence[Record], total: Coverage, tell: Callable[[str], None]) -> None:
    """Adds the lines of all records to `total`. `tell` gets a sentence for what can't be resolved.

    The programs of an object that can't be resolved are no longer measured in `total`.
    """
    objects = _Objects(tell)
    additions: list[Callable[[], None]] = []
    wanted: list[tuple[str, _Counts]] = []
    for kernel, by_test in objects.sort(records).items():
        counts: dict[str, _Counts] = defaultdict(_Counts)
        for test, found in by_test.items():
            for path, more in found.items():
                counts[path].add(more)
                if test:
                    additions.append(partial(objects.add_context, total.kernel(kernel), test, path, more))
        wanted += counts.items()
        for path, all_of_it in counts.items():
            additions.append(partial(objects.add_files, total.kernel(kernel), kernel, path, all_of_it))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the threads wait for programs
        for steps in (objects.preparations(wanted), additions):
            for done in [pool.submit(each) for each in steps]:
                done.result()
    for kernel, names in objects.unresolved().items():
        total.kernel(kernel).withdraw("counters", names, NOT_READ)


@dataclass
class _Counts:
    """What an object counted: counts by the counter's index, and the indices of test vectors."""

    counters: Counter[int] = field(default_factory=Counter)
    vectors: set[int] = field(default_factory=set)

    def add(self, more: _Counts) -> None:
        """Adds what was counted in another load."""
        self.counters.update(more.counters)
        self.vectors |= more.vectors


class _Objects:
    """The objects that counted. One that can't be read is reported once."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._known: dict[str, _Object | None] = {}
        self._said: set[str] = set()
        self._names: dict[tuple[str, str], set[str]] = {}  # of the objects, by kernel and path
        self._failed: set[str] = set()  # the paths that can't be resolved
        self._adding = Lock()
        self._loads: dict[tuple[str, str], Counter[frozenset[int]]] = {}
        """The counters that loads could not reach, and the number of such loads, by kernel and path."""

    def sort(self, records: Iterable[Record]) -> dict[str, dict[str, dict[str, _Counts]]]:
        """Returns the counts by index, for each kernel, test and object."""
        made: dict[str, dict[str, dict[str, _Counts]]] = {}
        for record in records:
            try:
                self._add_record(record, made.setdefault(record.kernel, {}).setdefault(record.test, {}))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                self._say(f"{record.kernel}: what a guest counted is not as expected: {error!r}")
        return made

    def _add_record(self, record: Record, objects: dict[str, _Counts]) -> None:
        if "lost" in record.counted:
            self._say(str(record.counted["lost"]))
        elif "without_mcdc" in record.counted:
            name, why = record.counted["without_mcdc"], record.counted["why"]
            self._say(f"no MC/DC of {name} on {record.kernel}: {why}")
        else:
            for path in record.counted["objects"]:
                self._names.setdefault((record.kernel, path), set()).update(record.counted["names"])
            for path, counts, gone in list(self._divide(record.counted)):
                objects.setdefault(path, _Counts()).add(counts)
                if gone is not None:
                    self._loads.setdefault((record.kernel, path), Counter())[gone] += 1

    def preparations(self, wanted: Sequence[tuple[str, _Counts]]) -> Iterator[Callable[[], None]]:
        """Yields steps that run llvm-cov for many objects at a time. `wanted` is what `add_files` gets."""
        asked: dict[str, list[_Asked]] = {}
        for path, counts in wanted:
            known = self._object(path)
            if known is not None and known.facts.functions:
                with suppress(BpfError, OSError):  # `add_files` meets it again, and reports it
                    one = _Asked(known, counts.counters, known.identities())
                    asked.setdefault(known.facts.clang, []).append(one)
        for same in asked.values():
            for batch in divide(same, most=-(-len(same) // (os.cpu_count() or 1))):
                yield partial(_prepare, batch)

    def add_files(self, kernel: KernelCoverage, name: str, path: str, counts: _Counts) -> None:
        """Adds what an object counted on the kernel of that name."""
        self._add(kernel, self._try(path, lambda known: known.files(counts.counters), essential=True))
        self._add(kernel, self._try(path, lambda known: known.decisions(counts)))
        for gone, loads in self._loads.get((name, path), {}).items():
            reached = self._try(path, partial(_Object.reached, gone=gone))
            for found in reached.values():
                for each in (found.alive, found.dead):
                    each.update(dict.fromkeys(each, loads))
            self._add(kernel, reached)

    def unresolved(self) -> dict[str, set[str]]:
        """Returns by kernel the names of the objects of which no line is known."""
        found: dict[str, set[str]] = {}
        for (kernel, path), names in self._names.items():
            if path in self._failed:
                found.setdefault(kernel, set()).update(names)
        return found

    def add_context(self, kernel: KernelCoverage, test: str, path: str, counts: _Counts) -> None:
        """Adds the lines that an object ran in a test."""
        ran = self._try(path, lambda known: known.ran(counts.counters))
        with self._adding:
            for file, line, count in ran:
                add_counts(kernel.contexts.setdefault(test, {}).setdefault(file, {}), {line: count})

    def _add(self, kernel: KernelCoverage, files: Mapping[str, FileCoverage]) -> None:
        with self._adding:
            for file, found in files.items():
                kernel.file(file).add(found)

    def _divide(self, counted: Mapping[str, Any]) -> Iterable[tuple[str, _Counts, frozenset[int] | None]]:
        """Divides the counters of linked sources, which follow one another in the linker's order.

        Yields for each source its object, the counts by index, and the indices that can't be reached.
        """
        paths, start, gone = counted["objects"], 0, counted["unreachable"]
        first = 0
        known = [self._object(path) for path in paths]
        if None in known:
            return
        for path, each in zip(paths, known, strict=True):
            assert each is not None
            end = start + each.facts.size // 8
            mine = None if gone is None else frozenset(i - start for i in gone if start <= i < end)
            last = first + (each.facts.conditions.size if each.facts.conditions else 0)
            counters = Counter({i - start: n for i, n in counted["counts"] if start <= i < end})
            yield path, _Counts(counters, {i - first for i in counted["vectors"] if first <= i < last}), mine
            start, first = end, last

    def _object(self, path: str) -> _Object | None:
        if path not in self._known:
            try:
                self._known[path] = made = _Object(path)
                if made.facts.conditions is not None and made.facts.conditions.lacking:
                    self._say(
                        f"no MC/DC: {made.facts.conditions.lacking}\n"
                        "  -> compile with clang 18 or later (--bpf-clang)"
                    )
            except (OSError, ValueError, KeyError, TypeError):
                self._known[path] = None
                self._failed.add(path)
                self._say(f"what {Path(path).name} counted is lost: its description is gone from the cache")
        return self._known[path]

    def _try(self, path: str, action: Callable[[_Object], Any], *, essential: bool = False) -> Any:
        """Returns what `action` returns, or {} if that fails. Without an `essential` one no line is known."""
        known = self._object(path)
        try:
            return action(known) if known is not None and known.facts.functions else {}
        except BpfError as e:
            self._say(str(e))
        except OSError as e:
            self._say(f"cannot report what {Path(path).name} counted: {e.strerror} ({e.filename})")
        if essential:
            self._failed.add(path)
        return {}

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._tell(text)


@dataclass(frozen=True)
class _Asked:
    """An object whose files are wanted, with its counts."""

    object: _Object
    counts: Mapping[int, int]
    identities: Set[str]


def _prepare(batch: Sequence[_Asked]) -> None:
    """Finds the files of several objects at once. If that fails, each is tried by itself later."""
    profile = "\n".join(one.object.profile(one.counts, frozenset()) for one in batch)
    maps = [one.object.map for one in batch]
    with suppress(BpfError, OSError), profiled(batch[0].object.facts.clang, profile) as (tools, _, option):
        found = read_export(*export(tools, option, maps, "lcov", "text"))
        for one in batch:
            one.object.prepared[_key(one.counts)] = {
                path: found[path] for path in one.identities if path in found
            }


def _key(counts: Mapping[int, int]) -> frozenset[tuple[int, int]]:
    return frozenset(counts.items())


class _Object:
    """An object that counted, at `path`. Raises `OSError` or `ValueError` when its facts are not there."""

    def __init__(self, path: str) -> None:
        text = facts_file(Path(path)).read_text()
        self.facts = Facts.from_json(text)
        self.map = str(map_file(Path(path)))
        self.prepared: dict[frozenset[tuple[int, int]], dict[str, FileCoverage]] = {}
        """What llvm-cov said already, by the counts."""
        self._possible: dict[frozenset[int], _Possible] = {}
        self._stored = Path(path).with_name(f"possible-{digest(text)}.json")

    def files(self, counts: Mapping[int, int]) -> dict[str, FileCoverage]:
        """Returns what was counted, by source file. Raises `UnsupportedError` when clang's tools fail."""
        made: dict[str, FileCoverage] = {}
        files = self.prepared.get(_key(counts))
        if files is None:
            files = read_export(*self._export(counts, "lcov", "text"))
        for path, found in files.items():
            kept = self._without_removed(path, found)
            if kept.lines:
                made[path] = kept
                if path in self.facts.sources:
                    kept.sources[self.facts.sources[path]] = 1
        return made

    def identities(self) -> Set[str]:
        """Returns the names of its functions, and the paths of its files with code."""
        return {counters.name for counters, _ in self.facts.functions} | self._without(frozenset()).keys()

    def decisions(self, counts: _Counts) -> dict[str, FileCoverage]:
        """Returns the decisions, by source file, with what was seen of their conditions."""
        conditions = self.facts.conditions
        if conditions is None or not (conditions.offsets or conditions.left_out):
            return {}
        made: dict[str, FileCoverage] = {}
        if conditions.offsets:
            made = self._shown(counts)
        for path, line, reason in conditions.left_out:
            made.setdefault(path, FileCoverage()).unmeasured[Unmeasured(line, reason)] = 1
        for path, found in made.items():
            code = self._without(frozenset()).get(path, {}).get("lines", set())
            seen = {key.line for key, n in found.decisions.items() if n}
            found.decisions = {key: n for key, n in found.decisions.items() if key.line in code | seen}
            found.unmeasured = {key: n for key, n in found.unmeasured.items() if key.line in code}
        return made

    def _shown(self, counts: _Counts) -> dict[str, FileCoverage]:
        with self._profiled(counts.counters, counts.vectors) as (tools, folder, profile):
            text = run_tool(tools.cov, "export", profile, "-format=text", self.map)
            lengths = {path: last for path, last in last_lines(text).items() if path.startswith("/")}
            write_blank(folder / "blank", lengths)
            there = f"-path-equivalence=/,{folder}/blank/"
            shown = run_tool(tools.cov, "show", "-show-mcdc", profile, there, self.map)
        name = Path(self.map).with_suffix(".c").name
        return read_decisions(text, read_shown(shown.decode(errors="surrogateescape"), list(lengths)), name)

    def ran(self, counts: Mapping[int, int]) -> Iterable[tuple[str, int, int]]:
        """Returns file, line and count of the lines that ran."""
        (lcov,) = self._export(counts, "lcov")
        return [one for one in read_lines(lcov) if one[2]]

    def reached(self, gone: frozenset[int]) -> dict[str, FileCoverage]:
        """Returns by source file which lines can be reached if the counters `gone` can't, and which can't."""
        here, made = self._without(gone), {}
        for path, kinds in self._without(frozenset()).items():
            alive = here.get(path, {}).get("lines", set())
            file = made[path] = FileCoverage()
            file.alive = dict.fromkeys(alive, 1)
            file.dead = dict.fromkeys(kinds["lines"] - alive, 1)
        return made

    def _without_removed(self, path: str, found: FileCoverage) -> FileCoverage:
        there = self._without(frozenset()).get(path, {})
        made = FileCoverage()
        for kind in _KINDS:
            counts: dict[Any, int] = getattr(found, kind)
            keys = there.get(kind, set())
            getattr(made, kind).update({key: n for key, n in counts.items() if n or key in keys})
        return made

    def _without(self, gone: frozenset[int]) -> _Possible:
        """Returns what can have a count, if the counters `gone` and those that clang removed stay 0.

        To find that out, all other counters get large, different numbers. Each line and branch that
        depends on one of them then has a count, too.
        """
        if gone not in self._possible:
            found = self._find_possible(gone) if gone else self._stored_possible()
            self._possible[gone] = {
                path: {kind: set(getattr(file, kind)) for kind in _KINDS} for path, file in found.items()
            }
        return self._possible[gone]

    def _stored_possible(self) -> dict[str, FileCoverage]:
        """Returns what `_find_possible` finds without `gone`. It depends on the object alone, and is kept."""
        text = read_checked(self._stored)
        if text is None:
            found = self._find_possible(frozenset())
            with suppress(OSError):  # a read-only cache
                write_checked(
                    self._stored, json.dumps({path: file.to_plain() for path, file in found.items()})
                )
            return found
        return {path: FileCoverage.from_plain(plain) for path, plain in json.loads(text).items()}

    def _find_possible(self, gone: frozenset[int]) -> dict[str, FileCoverage]:
        """Returns by file what can have a count. The counts themselves have no meaning."""
        made: dict[str, FileCoverage] = {}
        for seed in (1, 2):
            lcov, text = self._export(self._numbers(seed, gone), "lcov", "text")
            for path, file in read_export(lcov, text).items():
                possible = made.setdefault(path, FileCoverage())
                for kind in _KINDS:
                    getattr(possible, kind).update({key: 1 for key, n in getattr(file, kind).items() if n})
        return made

    def _numbers(self, seed: int, gone: frozenset[int]) -> dict[int, int]:
        drawn = random.Random(seed)
        return {
            offset // 8 + i: drawn.randrange(_LARGE) + _LARGE
            for counters, offset in self.facts.functions
            for i in range(counters.count)
            if i not in counters.gone and offset // 8 + i not in gone
        }

    def _export(self, counts: Mapping[int, int], *formats: str) -> list[bytes]:
        """Returns what ``llvm-cov export`` says, in each of the formats."""
        with self._profiled(counts, frozenset()) as (tools, _, profile):
            return export(tools, profile, [self.map], *formats)

    def _profiled(
        self, counts: Mapping[int, int], vectors: Collection[int]
    ) -> AbstractContextManager[tuple[LlvmTools, Path, str]]:
        return profiled(self.facts.clang, self.profile(counts, vectors))

    def profile(self, counts: Mapping[int, int], vectors: Collection[int]) -> str:
        """Returns a profile in LLVM's format of text: name, hash, number of counters, counters, bitmap."""
        parts = []
        for counters, offset in self.facts.functions:
            values = [counts.get(offset // 8 + i, 0) for i in range(counters.count)]
            lines = [
                counters.name,
                counters.hash,
                counters.count,
                *values,
                *self._bitmap(counters, vectors),
                "",
            ]
            parts.append("\n".join(map(str, lines)))
        return "\n".join(parts)

    def _bitmap(self, counters: Counters, vectors: Collection[int]) -> Iterator[str]:
        """Yields the lines of a function's bitmap: a bit for each byte of its test vectors."""
        if not counters.vectors or self.facts.conditions is None:
            return
        start = self.facts.conditions.offsets[counters.symbol]
        yield f"${counters.vectors // 8}"
        for first in range(start, start + counters.vectors, 8):
            yield str(sum((first + bit in vectors) << bit for bit in range(8)))
