"""Runs the commands of a page's console blocks, and compares what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_bpfmaps import paths

CACHE = paths.cache_dir()


def steps(page: Path) -> list[tuple[int, str, list[str]]]:
    """Returns line, command and expected lines of each command in the console blocks."""
    found: list[tuple[int, str, list[str]]] = []
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append((number, line[2:], []))
        elif inside:
            found[-1][2].append(line)
    return found


def missing(expected: list[str], printed: str, *, loosely: bool = False) -> int | None:
    """Returns the index of the first line that is not in the output, in order; `…` stands for any text.

    `loosely`: each number stands for any number, and a rule of hyphens or the like for one of any length.
    """
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for number, line in enumerate(expected):
        pattern = _pattern(" ".join(line.split()), loosely)
        while lines and not re.fullmatch(pattern, lines[0]):
            lines.pop(0)
        if line.strip() not in {"…", ""} and not lines:
            return number
    return None


_VARIES = re.compile(r"…|(?<![A-Za-z_])(?:0x[0-9a-f]+|\d[\d,.]*\d|\d)|[=_-]{4,}")


def _pattern(line: str, loosely: bool) -> str:
    if not loosely:
        return ".*".join(map(re.escape, line.split("…")))
    ways = {"…": ".*", "=": "=+", "_": "_+", "-": "-+"}
    pattern, end = "", 0
    for found in _VARIES.finditer(line):
        number = r"0x[0-9a-f]+" if found[0].startswith("0x") else r"\d[\d,.]*"
        pattern += re.escape(line[end : found.start()]) + ways.get(found[0][0], number)
        end = found.end()
    return pattern + re.escape(line[end:])


def run_command(command: str, folder: Path, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Runs a command of a page in a folder. Its output has 80 columns and no colours, errors included."""
    environment = {**os.environ, "BPFMAPS_CACHE": str(CACHE), "COLUMNS": "80", "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["PYTEST_ADDOPTS"] = "--bpf-vm-timeout=120 -p no:cacheprovider -p no:hypothesispytest"
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        environment.pop(name, None)
    return subprocess.run(
        [*prefix, "bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def run_commands(page: Path, folder: Path, prefix: Sequence[str] = ()) -> None:
    """Runs the commands one after the other, beginning in a folder, by the command `prefix` if there is one.

    Fails where a line is not printed.
    """
    for line, command, expected in steps(page):
        if command.startswith("cd "):
            folder /= command.split()[1]
            continue
        done = run_command(command, folder, prefix)
        absent = missing(expected, done.stdout)
        if absent is not None:
            wanted = expected[absent]
            pytest.fail(f"{page.name}:{line}: $ {command}\ndid not print: {wanted}\nbut:\n{done.stdout}")
