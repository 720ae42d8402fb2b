"""Asks llvm-cov what ran of the same C as a native program: lines, functions, branches, MC/DC."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_bpfmaps.compiler.local_compiler import LocalCompiler

HERE = Path(__file__).parent


COUNTED = ["-fprofile-instr-generate", "-fcoverage-mapping"]
MCDC = "-fcoverage-mcdc"


def knows_conditions(clang: str) -> bool:
    """Returns whether this clang has MC/DC."""
    run = [clang, *COUNTED, MCDC, "-fsyntax-only", "-x", "c", "/dev/null"]
    return subprocess.run(run, capture_output=True, check=False).returncode == 0


def counting_clang() -> str:
    """Returns the newest clang that knows MC/DC and has the library for native programs that count."""
    names = [LocalCompiler().clang.path, *(f"clang-{version}" for version in range(30, 17, -1))]
    for clang in filter(None, map(shutil.which, names)):
        link = [clang, *COUNTED, "-x", "c", "-", "-o", "/dev/null"]
        linked = subprocess.run(link, input=b"int main(void) { return 0; }", capture_output=True, check=False)
        if linked.returncode == 0 and knows_conditions(clang):
            return clang
    raise AssertionError("no clang can count in native programs: apt-get install clang-19 libclang-rt-19-dev")


def native_counts(
    source: Path,
    packets: Sequence[bytes],
    folder: Path,
    clang: str,
    tools: Sequence[str],
    *,
    mcdc: bool = False,
) -> dict[str, dict[str, dict[Any, Any]]]:
    """Returns for each file its lines, branches and functions with their counts.

    With `mcdc` also its decisions: how often each was found with the same verdicts of its conditions. `tools`
    are llvm-profdata and llvm-cov of this clang's version.
    """
    profdata, cov = tools
    run = [clang, "-O1", "-DNATIVE", "-I", str(HERE), "-w"]
    counted = [*COUNTED, *([MCDC] if mcdc else [])]
    _do([*run, *counted, "-c", str(source), "-o", f"{folder}/program.o"])
    _do([*run, "-c", str(HERE / "driver.c"), "-o", f"{folder}/driver.o"])
    _do([clang, *counted, f"{folder}/program.o", f"{folder}/driver.o", "-o", f"{folder}/native"])
    arguments = [packet.hex() for packet in packets]
    _do([f"{folder}/native", *arguments], LLVM_PROFILE_FILE=f"{folder}/raw")
    _do([profdata, "merge", f"{folder}/raw", "-o", f"{folder}/profile"])
    export = [cov, "export", f"-instr-profile={folder}/profile", f"{folder}/native"]
    return _parse(_do([*export, "-format=lcov"]), json.loads(_do([*export, "-format=text"]))["data"][0])


def _do(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, env=environment or None, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _parse(lcov: str, exported: dict[str, Any]) -> dict[str, dict[str, dict[Any, Any]]]:
    files: dict[str, dict[str, dict[Any, Any]]] = {}
    for record in lcov.split("end_of_record"):
        lines = record.strip().splitlines()
        if not lines:
            continue
        path = next(line[3:] for line in lines if line.startswith("SF:"))
        numbers = [line[3:].split(",") for line in lines if line.startswith("DA:")]
        files[path] = {
            "lines": {int(n): int(count) for n, count, *_ in numbers},
            "functions": {},
            "branches": {},
            "decisions": {},
        }
    for file in exported["files"]:
        for line, column, _, end, yes, no, *_ in file["branches"]:
            branches = files[file["filename"]]["branches"]
            for outcome, count in (("true", yes), ("false", no)):  # of all uses of a macro
                key = (line, f"{column}-{end}", outcome)
                branches[key] = branches.get(key, 0) + count
        for line, column, end_line, end_column, *_, verdicts in file.get("mcdc_records", ()):
            decisions = files[file["filename"]]["decisions"]
            decision = (f"{line}:{column}-{end_line}:{end_column}", tuple(verdicts))
            decisions[decision] = decisions.get(decision, 0) + 1
    for function in exported["functions"]:
        name, line = function["name"].rpartition(":")[2], function["regions"][0][0]
        path = function["filenames"][function["regions"][0][5]]
        files[path]["functions"][name, line] = function["count"]
    return files
