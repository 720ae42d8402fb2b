"""Runs the commands of docs/tutorial.md one after the other, and compares what they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps import paths

PAGE = Path(__file__).parents[2] / "docs/tutorial.md"
CACHE = paths.cache_dir()


def steps() -> list[tuple[int, str, list[str]]]:
    """Returns line, command and expected lines of each command in the console blocks."""
    found: list[tuple[int, str, list[str]]] = []
    inside = False
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
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


def test_what_is_missing() -> None:
    assert missing(["a", "…", "c … e"], "a\nb\nc  d e\n") is None
    assert missing(["a", "c"], "c\na\n") == "c"


def test_only_downloads_are_not_run() -> None:
    (shell,) = re.findall(r"^```shell\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert [line.split()[:2] for line in shell.splitlines()] == [
        ["pip", "install"],
        ["bpfmaps", "doctor"],
        ["bpfmaps", "kernels"],
    ]


def test_the_commands_print_what_the_page_says(tmp_path) -> None:
    folder = tmp_path
    environment = {**os.environ, "BPFMAPS_CACHE": str(CACHE), "COLUMNS": "80", "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["PYTEST_ADDOPTS"] = "--bpf-vm-timeout=120 -p no:cacheprovider"
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        environment.pop(name, None)
    for line, command, expected in steps():
        if command.startswith("cd "):
            folder /= command.split()[1]
            continue
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        absent = missing(expected, done.stdout)
        if absent is not None:
            pytest.fail(f"{PAGE.name}:{line}: $ {command}\ndid not print: {absent}\nbut:\n{done.stdout}")
