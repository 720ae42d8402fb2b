"""Finds llvm-profdata and llvm-cov of a clang's own version, and runs them.

Tools of another version may not be able to read what clang wrote.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pytest_bpfmaps.compiler.clang import Clang
from pytest_bpfmaps.errors import UnsupportedError

_VERSION = re.compile(r"version (\d+)[\d.]*")
_SECONDS = 300
NAMES = ("llvm-profdata", "llvm-cov")


@dataclass(frozen=True)
class LlvmTools:
    """The paths of the tools."""

    profdata: str
    cov: str


@cache
def tools_for(clang: str) -> LlvmTools:
    """Returns the tools for a clang, which is a path. Raises `UnsupportedError` when they are not there."""
    version = Clang(clang, "").version
    major = version.partition(".")[0]
    return LlvmTools(*(_find(name, clang, major) for name in NAMES))


def _find(name: str, clang: str, major: str) -> str:
    others = []
    for path in _candidates(name, clang, major):
        found = _major(path)
        if found == major:
            return path
        others.append(f"{path} is of version {found or 'unknown'}")
    raise UnsupportedError(
        "cannot report what clang counted",
        on=f"for {clang}, version {major}",
        why="; ".join(dict.fromkeys(others)) if others else f"there is no {name} nor {name}-{major}",
        fix=f"install LLVM's tools of version {major}: 'apt-get install llvm-{major}' on Debian and Ubuntu, "
        "'dnf install llvm' on Fedora; or compile with a clang that has them (--bpf-clang)",
    )


def _candidates(name: str, clang: str, major: str) -> list[str]:
    """Returns paths: beside clang, as LLVM has them, then on the PATH."""
    folders = [os.path.dirname(os.path.realpath(clang)), os.path.dirname(clang)]
    names = [name, f"{name}-{major}"]
    beside = [os.path.join(folder, each) for folder in folders for each in names]
    on_path = [found for each in reversed(names) if (found := shutil.which(each))]
    return [path for path in dict.fromkeys([*beside, *on_path]) if os.access(path, os.X_OK)]


@cache
def _major(path: str) -> str:
    # llvm-profdata 14 prints its version only for a subcommand.
    words = ["merge", "--version"] if "profdata" in os.path.basename(path) else ["--version"]
    try:
        said = subprocess.run([path, *words], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = _VERSION.search(said.stdout)
    return found[1] if found else ""


@contextmanager
def profiled(clang: str, profile: str) -> Iterator[tuple[LlvmTools, Path, str]]:
    """Gives the tools, a temporary folder, and the option that names a profile in that folder.

    `profile` is LLVM's format of text. Raises `UnsupportedError` and `OSError`.
    """
    tools = tools_for(clang)
    with tempfile.TemporaryDirectory(prefix="bpfmaps-coverage-") as folder:
        text, merged = Path(folder, "text"), Path(folder, "profile")
        text.write_text(profile, errors="surrogateescape")
        run_tool(tools.profdata, "merge", str(text), "-o", str(merged))
        yield tools, Path(folder), f"-instr-profile={merged}"


def export(tools: LlvmTools, profile: str, maps: Sequence[str], *formats: str) -> list[bytes]:
    """Returns what ``llvm-cov export`` says of objects, whose maps it gets, in each of the formats."""
    first, *others = maps
    objects = [first, *(word for each in others for word in ("-object", each))]
    return [run_tool(tools.cov, "export", profile, f"-format={each}", *objects) for each in formats]


def run_tool(*command: str) -> bytes:
    """Returns what a tool writes. Raises `UnsupportedError` with its words when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise UnsupportedError("cannot report what clang counted", on=command[0], why=str(e)) from e
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip() or f"it ended with {done.returncode}"
        raise UnsupportedError("cannot report what clang counted", on=command[0], why=why)
    return done.stdout
