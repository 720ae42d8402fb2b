"""Makes the counting object: it has the same source, and clang's coverage counters.

Two files are beside the object. Its *facts* say which function each counter belongs to. The *map* is an
object that is never loaded; llvm-cov reads from it which lines each counter counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_bpfmaps.cache.stored_files import digest
from pytest_bpfmaps.compiler.clang import Outcome
from pytest_bpfmaps.compiler.counters_ir import SECTION, Counters, NotInstrumentedError, coverage_map, fit
from pytest_bpfmaps.elf.editor import Elf

_FLAGS = (
    *("-fprofile-instr-generate", "-fcoverage-mapping", "-fprofile-update=atomic", "-fno-pic"),
    *("-mllvm", "-enable-name-compression=false", "-w"),
    # profiles need a system with a linker and a runtime: clang 14 crashes without this
    *("-target", "bpf-unknown-linux"),
)
# the macros that this target defines, and the plain object's target does not
_UNDEFINED = ("__linux__", "__linux", "linux", "__unix__", "__unix", "unix", "__gnu_linux__", "__ELF__")
_CODE_ONLY = ("-Xclang", "-disable-llvm-passes", "-Qunused-arguments", "-w")


@dataclass(frozen=True)
class Facts:
    """Facts about a counting object.

    `functions` has its counters, each with its offset in bytes in the section of counters. `size` is that
    section's size in bytes. `sources` has the digests of the source files. `clang` is the compiler's path.
    """

    functions: list[tuple[Counters, int]]
    size: int
    sources: dict[str, str]
    clang: str

    def to_json(self) -> str:
        """Returns the facts as JSON."""
        functions = [[*vars(each).values(), offset] for each, offset in self.functions]
        return json.dumps({**vars(self), "functions": functions})

    @classmethod
    def from_json(cls, text: str) -> Facts:
        """Returns the facts from the JSON of `to_json`."""
        plain: dict[str, Any] = json.loads(text)
        functions = [
            (Counters(symbol, name, code, count, tuple(gone)), offset)
            for symbol, name, code, count, gone, offset in plain.pop("functions")
        ]
        return cls(functions=functions, **plain)


def counting_flags() -> list[str]:
    """Returns the options that make clang write counters. They must be the last options."""
    return [*_FLAGS, *(f"-U{name}" for name in _UNDEFINED)]


def facts_file(made: Path) -> Path:
    """Returns the path of a counting object's facts."""
    return made.with_suffix(".facts")


def map_file(made: Path) -> Path:
    """Returns the path of a counting object's map, which llvm-cov reads."""
    return made.with_suffix(".map")


def assemble(
    folder: Path,
    flags: Sequence[str],
    run: Callable[[Sequence[str]], Outcome],
    clang: str,
    inputs: Sequence[str],
) -> Outcome:
    """Makes ``out.o``, its facts and its map from ``out.ll``, which clang wrote into `folder`.

    `run` runs clang. ``out.ll`` was made with the options `flags` from the files `inputs`.
    """
    text = (folder / "out.ll").read_text(errors="surrogateescape")
    try:
        fitted, functions = fit(text)
    except NotInstrumentedError as e:
        return Outcome(1, f"error: its counters are not as expected: {e}\n")
    out = folder / "out.o"
    for name, content, target in (("code", fitted, out), ("map", coverage_map(text), map_file(out))):
        (folder / f"{name}.ll").write_text(content, errors="surrogateescape")
        outcome = run([*flags, *_CODE_ONLY, "-c", f"{folder}/{name}.ll", "-o", str(target)])
        if outcome.code:
            return outcome
    facts_file(out).write_text(_facts(out, functions, clang, inputs).to_json())
    return outcome


def _facts(made: Path, functions: list[Counters], clang: str, inputs: Sequence[str]) -> Facts:
    elf = Elf(made.read_bytes())
    section = elf.section(SECTION)
    if section is None:  # the object has no function
        return Facts([], 0, {}, clang)
    offsets = {s.name: s.value for s in elf.symbols() if s.section == section.index}
    placed = [(each, offsets[each.symbol]) for each in functions if each.symbol in offsets]
    sources = {path: digest(Path(path).read_bytes()) for path in inputs}
    return Facts(placed, len(elf.content(section)), sources, clang)
