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


def missing(expected: list[str], printed: str) -> str | None:
    """Returns the first line that is not in the output, in order; `…` stands for any text."""
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for line in expected:
        pattern = ".*".join(map(re.escape, " ".join(line.split()).split("…")))
        while lines and not re.fullmatch(pattern, lines[0]):
            lines.pop(0)
        if line.strip() != "…" and not lines:
            return line
    return None


def run_commands(page: Path, folder: Path, prefix: Sequence[str] = ()) -> None:
    """Runs the commands one after the other, beginning in a folder, by the command `prefix` if there is one.

    Fails where a line is not printed.
    """
    environment = {**os.environ, "BPFMAPS_CACHE": str(CACHE), "COLUMNS": "80", "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["PYTEST_ADDOPTS"] = "--bpf-vm-timeout=120 -p no:cacheprovider -p no:hypothesispytest"
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        environment.pop(name, None)
    for line, command, expected in steps(page):
        if command.startswith("cd "):
            folder /= command.split()[1]
            continue
        done = subprocess.run(
            [*prefix, "bash", "-c", command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        absent = missing(expected, done.stdout)
        if absent is not None:
            pytest.fail(f"{page.name}:{line}: $ {command}\ndid not print: {absent}\nbut:\n{done.stdout}")
