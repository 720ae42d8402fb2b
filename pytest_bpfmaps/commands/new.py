"""`bpfmaps new`: makes a project with a BPF program, its test, and a workflow for GitHub Actions."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_bpfmaps.errors import BpfError, UnsupportedError, strerror
from pytest_bpfmaps.paths import PACKAGE

TEMPLATES = PACKAGE / "templates"
_PLACEHOLDER = "PROJECT"
_MOST = 30
"""The most characters of a name. The lines of the files stay short enough for ruff."""

_COMMON = {
    "README.md": "common/README.md",
    "pyproject.toml": "common/pyproject.toml",
    "requirements.txt": "common/requirements.txt",
    ".gitignore": "common/gitignore",
    ".github/workflows/test.yml": "common/github.yml",
}
_PROGRAM = "bpf/PROJECT.bpf.c"
_TEST = "tests/test_PROJECT.py"
VARIANTS = {
    "tracing": {_PROGRAM: "tracing/program.bpf.c", _TEST: "tracing/test.py.txt"},
    "xdp": {_PROGRAM: "xdp/program.bpf.c", _TEST: "xdp/test.py.txt"},
    "agent": {
        _PROGRAM: "tracing/program.bpf.c",
        "src/PROJECT.c": "agent/agent.c",
        "Makefile": "agent/Makefile",
        "tests/conftest.py": "agent/conftest.py.txt",
        _TEST: "agent/test.py.txt",
    },
}
"""The files of each kind of project, with the template of each. `_COMMON` has those of every project."""

_KINDS = {
    "tracing": "a program that counts what is executed, and sends events (the default)",
    "xdp": "a program that filters packets",
    "agent": "a program of libbpf in C, which loads its BPF program itself",
}
_EXEC = "tracepoint/sched/sched_process_exec"
_FEATURES = {"tracing": _EXEC, "xdp": "xdp", "agent": _EXEC}


def register(commands: Any) -> None:
    """Adds ``new`` to argparse's `commands`."""
    new = commands.add_parser(
        "new",
        help="make a project: a BPF program, its test, and a workflow for GitHub Actions",
        description="Makes the folder NAME with a BPF program, a test that passes, and what runs it.",
    )
    new.add_argument("name", metavar="NAME", help="the name of the folder and of the program's file")
    kinds = new.add_mutually_exclusive_group()
    for kind, text in _KINDS.items():
        kinds.add_argument(f"--{kind}", dest="kind", action="store_const", const=kind, help=text)
    new.set_defaults(run=_new, kind="tracing")


def _new(arguments: argparse.Namespace) -> None:
    name: str = arguments.name
    _check_name(name)
    files = {**_COMMON, **VARIANTS[arguments.kind]}
    _make(Path(name), {target: TEMPLATES / source for target, source in files.items()})
    print(f"made {name}/")
    for target in files:
        print(f"  {target.replace(_PLACEHOLDER, name)}")
    print("\nnext:")
    for line in [f"cd {name}", *_next_steps(arguments.kind)]:
        print(f"  {line}")


def _check_name(name: str) -> None:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and len(name) <= _MOST:
        return
    near = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:_MOST]
    if near[:1].isdigit():
        near = f"_{near}"[:_MOST]
    raise BpfError(
        "cannot make a project",
        on=repr(name),
        why=f"a name has at most {_MOST} letters, digits and underscores, and does not begin with a digit",
        fix=f"bpfmaps new {near or 'counter'}",
    )


def _make(folder: Path, files: dict[str, Path]) -> None:
    """Writes the files into a new folder. If that fails, nothing is left. Raises `BpfError`."""
    on = f"in {folder}"
    if os.path.lexists(folder):
        raise BpfError(
            "cannot make a project",
            on=on,
            why="there is something of that name",
            fix=f"give another name, or move it away: mv {folder} {folder}.old",
        )
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder}.", dir=Path.cwd()) as made:
            for target, source in files.items():
                place = Path(made, "project", target.replace(_PLACEHOLDER, str(folder)))
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(source.read_text().replace(_PLACEHOLDER, str(folder)))
            os.rename(Path(made, "project"), folder)
    except OSError as error:
        fix = "go to a folder that you may write to"
        raise BpfError("cannot make a project", on=on, why=strerror(error.errno or 0), fix=fix) from None


def _next_steps(kind: str) -> Iterator[str]:
    """Gives the commands that run the test on this machine."""
    from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

    refusal = _refusal(kind)
    kernels = Catalogue().names()
    yield "pip install -r requirements.txt"
    if not refusal:
        yield "pytest                                    # on this kernel"
    if not kernels:
        yield "bpfmaps kernels fetch debian:bookworm     # a kernel for virtual machines, stored as 6.1"
    command = f"pytest --bpf-kernel={kernels[-1] if kernels else '6.1'}"
    yield f"{command:42}# in a virtual machine" + (f"; not on this kernel: {refusal}" if refusal else "")


def _refusal(kind: str) -> str:
    """Returns why the running kernel can't run the test of the project; empty if it can."""
    from pytest_bpfmaps.kernel.features import asked_for, probe
    from pytest_bpfmaps.kernel.privileges import host_refusal

    try:
        refusal = host_refusal()
        if refusal:
            return refusal
        return "" if probe(*asked_for(_FEATURES[kind])) else f"it lacks {_FEATURES[kind]}"
    except UnsupportedError as error:  # there is no libbpf
        return f"{error.what} {error.on or ''}: {error.why}".replace(" :", ":")
