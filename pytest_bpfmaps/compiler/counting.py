"""Makes the object that counts what runs: of the same source, with clang's coverage counters.

Beside the object lie its *facts*, which say what each counter is of, and the *map*, an object that is never
loaded: llvm-cov reads in it which lines they mean.
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
    # the profile is for a system with a linker and a runtime: clang 14 crashes without
    *("-target", "bpf-unknown-linux"),
)
# what that target defines, and the plain object's has not
_UNDEFINED = ("__linux__", "__linux", "linux", "__unix__", "__unix", "unix", "__gnu_linux__", "__ELF__")
_CODE_ONLY = ("-Xclang", "-disable-llvm-passes", "-Qunused-arguments", "-w")


@dataclass(frozen=True)
class Facts:
    """What is known of an object that counts.

    `functions` are its counters, each with the offset in bytes in the section of counters, whose size in
    bytes is `size`. `sources` are digests of the files that it was made of. `clang` is the path of the
    compiler.
    """

    functions: list[tuple[Counters, int]]
    size: int
    sources: dict[str, str]
    clang: str

    def to_json(self) -> str:
        """As it is kept."""
        functions = [[*vars(each).values(), offset] for each, offset in self.functions]
        return json.dumps({**vars(self), "functions": functions})

    @classmethod
    def from_json(cls, text: str) -> Facts:
        """The reverse of `to_json`."""
        plain: dict[str, Any] = json.loads(text)
        functions = [
            (Counters(symbol, name, code, count, tuple(gone)), offset)
            for symbol, name, code, count, gone, offset in plain.pop("functions")
        ]
        return cls(functions=functions, **plain)


def counting_flags() -> list[str]:
    """The options of clang that have it count; they come last."""
    return [*_FLAGS, *(f"-U{name}" for name in _UNDEFINED)]


def facts_file(made: Path) -> Path:
    """Where the facts of an object that counts are."""
    return made.with_suffix(".facts")


def map_file(made: Path) -> Path:
    """Where llvm-cov's part of an object that counts is."""
    return made.with_suffix(".map")


def assemble(
    folder: Path,
    flags: Sequence[str],
    run: Callable[[Sequence[str]], Outcome],
    clang: str,
    inputs: Sequence[str],
) -> Outcome:
    """Makes ``out.o``, its facts and its map of ``out.ll``, which clang wrote into `folder`.

    `run` runs clang, `flags` are those that ``out.ll`` was made with, `inputs` the files that it was made of.
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
    if section is None:  # it has no function
        return Facts([], 0, {}, clang)
    offsets = {s.name: s.value for s in elf.symbols() if s.section == section.index}
    placed = [(each, offsets[each.symbol]) for each in functions if each.symbol in offsets]
    sources = {path: digest(Path(path).read_bytes()) for path in inputs}
    return Facts(placed, len(elf.content(section)), sources, clang)
