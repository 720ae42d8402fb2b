"""Makes the counting object: an object of the same source that also has clang's coverage counters.

Two files are beside the object. Its *facts* say which function each counter belongs to. The *map* is an
object that is never loaded; llvm-cov reads from it which lines each counter counts. The object may also
record the values of conditions (MC/DC), see `conditions_ir`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_bpfmaps.cache.stored_files import digest
from pytest_bpfmaps.compiler.clang import Outcome
from pytest_bpfmaps.compiler.conditions_ir import lower
from pytest_bpfmaps.compiler.counters_ir import (
    SECTION,
    SECTION_OF_VECTORS,
    Counters,
    NotInstrumentedError,
    coverage_map,
    fit,
    vectors_symbol,
)
from pytest_bpfmaps.elf.editor import Elf

_FLAGS = (
    *("-fprofile-instr-generate", "-fcoverage-mapping", "-fprofile-update=atomic", "-fno-pic"),
    *("-mllvm", "-enable-name-compression=false", "-w"),
    # profiles need a system with a linker and a runtime: clang 14 crashes without this
    *("-target", "bpf-unknown-linux"),
)
# the macros that this target defines, and the plain object's target does not
_UNDEFINED = ("__linux__", "__linux", "linux", "__unix__", "__unix", "unix", "__gnu_linux__", "__ELF__")
_IR = ("-Qunused-arguments", "-w")
_AS_IT_IS = ("-Xclang", "-disable-llvm-passes")
_MCDC = "-fcoverage-mcdc"
# By default a decision may have 2**31 test vectors, and each needs a byte of a map. clang 18 lacks this
# option, and has a lower limit.
_MOST_VECTORS = ("-Xclang", "-fmcdc-max-test-vectors=65536")
_REFUSED = re.compile(r"error: unknown argument:? '([^']+)'")
_LEFT_OUT = re.compile(
    r"^(.+?):(\d+):\d+: warning: unsupported MC/DC boolean expression; (.+?)\. Expression will not",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Conditions:
    """Facts about the conditions of a counting object.

    `offsets` has the place of each function's test vectors in their section, by the symbol of its counters.
    `size` is that section's size in bytes. `left_out` has file, line and reason of each decision that clang
    leaves out. `lacking` says why no conditions are recorded; it is empty if they are.
    """

    offsets: dict[str, int]
    size: int
    left_out: list[tuple[str, int, str]]
    lacking: str = ""


@dataclass(frozen=True)
class Facts:
    """Facts about a counting object.

    `functions` has its counters, each with its offset in bytes in the section of counters. `size` is that
    section's size in bytes. `sources` has the digests of the source files. `clang` is the compiler's path.
    `conditions` is None if they were not requested.
    """

    functions: list[tuple[Counters, int]]
    size: int
    sources: dict[str, str]
    clang: str
    conditions: Conditions | None = None

    def to_json(self) -> str:
        """Returns the facts as JSON."""
        functions = [[*vars(each).values(), offset] for each, offset in self.functions]
        conditions = self.conditions and vars(self.conditions)
        return json.dumps({**vars(self), "functions": functions, "conditions": conditions})

    @classmethod
    def from_json(cls, text: str) -> Facts:
        """Returns the facts from the JSON of `to_json`."""
        plain: dict[str, Any] = json.loads(text)
        functions = [
            (Counters(symbol, name, code, count, tuple(gone), vectors), offset)
            for symbol, name, code, count, gone, vectors, offset in plain.pop("functions")
        ]
        conditions = plain.pop("conditions")
        if conditions is not None:
            left_out = [(file, line, why) for file, line, why in conditions.pop("left_out")]
            conditions = Conditions(left_out=left_out, **conditions)
        return cls(functions=functions, conditions=conditions, **plain)


def counting_flags() -> list[str]:
    """Returns the options that make clang write counters. They must be the last options."""
    return [*_FLAGS, *(f"-U{name}" for name in _UNDEFINED)]


def condition_flags() -> list[str]:
    """Returns the options that make clang write the values of conditions, too, for `assemble`."""
    return [_MCDC, *_MOST_VECTORS, *_AS_IT_IS]


def accepted(flags: list[str], output: str) -> list[str] | None:
    """Returns the `condition_flags` to try next, if clang's `output` says that it lacks one of `flags`.

    The list is empty if clang can't record conditions. Returns None if clang failed for another reason.
    """
    found = _REFUSED.search(output)
    if found is None or found[1] not in flags:
        return None
    return [] if found[1] == _MCDC else [_MCDC, *_AS_IT_IS]


def facts_file(made: Path) -> Path:
    """Returns the path of a counting object's facts."""
    return made.with_suffix(".facts")


def map_file(made: Path) -> Path:
    """Returns the path of a counting object's map, which llvm-cov reads."""
    return made.with_suffix(".map")


@dataclass(frozen=True)
class Assembly:
    """Makes the object, its facts and its map from ``out.ll``, which clang wrote into `folder`.

    `run` runs clang, which has the path `clang` and the version `version`. ``out.ll`` was made with the
    options `flags` from the files `inputs`. `conditions` has the `condition_flags` that were used, or None.
    """

    folder: Path
    flags: Sequence[str]
    run: Callable[[Sequence[str]], Outcome]
    clang: str
    version: str
    inputs: Sequence[str]
    conditions: Sequence[str] | None

    def assemble(self, warnings: str) -> Outcome:
        """Writes the files. `warnings` is the text that clang printed when it wrote ``out.ll``."""
        source = self.folder / "out.ll"
        try:
            if self.conditions:
                raw = self.folder / "raw.ll"
                raw.write_text(lower(_read(source)), errors="surrogateescape")
                # clang wrote raw.ll without optimizing, which would hide the number of the test vector.
                outcome = self.run([*self.flags, *_IR, "-S", "-emit-llvm", str(raw), "-o", str(source)])
                if outcome.code:
                    return outcome
            text = _read(source)
            fitted, functions = fit(text)
        except NotInstrumentedError as e:
            return Outcome(1, f"error: its counters are not as expected: {e}\n")
        out = self.folder / "out.o"
        for name, content, target in (("code", fitted, out), ("map", coverage_map(text), map_file(out))):
            (self.folder / f"{name}.ll").write_text(content, errors="surrogateescape")
            files = ["-c", f"{self.folder}/{name}.ll", "-o", str(target)]
            outcome = self.run([*self.flags, *_IR, *_AS_IT_IS, *files])
            if outcome.code:
                return outcome
        facts_file(out).write_text(self._facts(out, functions, warnings).to_json())
        return outcome

    def _facts(self, made: Path, functions: list[Counters], warnings: str) -> Facts:
        elf = Elf(made.read_bytes())
        places, size = _places(elf, SECTION)
        placed = [(each, places[each.symbol]) for each in functions if each.symbol in places]
        if not placed:  # the object has no function
            return Facts([], 0, {}, self.clang)
        sources = {path: digest(Path(path).read_bytes()) for path in self.inputs}
        return Facts(placed, size, sources, self.clang, self._conditions(elf, functions, warnings))

    def _conditions(self, elf: Elf, functions: list[Counters], warnings: str) -> Conditions | None:
        if self.conditions is None:
            return None
        if not self.conditions:
            return Conditions({}, 0, [], f"clang {self.version} has no {_MCDC}")
        places, size = _places(elf, SECTION_OF_VECTORS)
        offsets = {one.symbol: places[vectors_symbol(one.symbol)] for one in functions if one.vectors}
        left_out = [(path, int(line), why) for path, line, why in _LEFT_OUT.findall(warnings)]
        return Conditions(offsets, size, left_out)


def _read(path: Path) -> str:
    return path.read_text(errors="surrogateescape")


def _places(elf: Elf, name: str) -> tuple[dict[str, int], int]:
    """Returns the offsets of a section's symbols, and its size."""
    section = elf.section(name)
    if section is None:
        return {}, 0
    return {s.name: s.value for s in elf.symbols() if s.section == section.index}, len(elf.content(section))
