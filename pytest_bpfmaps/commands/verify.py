"""`bpfmaps verify`: asks kernels for their verdict on the programs of objects, without a test."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HOST = "host"
_OF_PYTEST = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")


def register(commands: Any) -> None:
    """Adds ``verify`` to argparse's `commands`."""
    verify = commands.add_parser(
        "verify",
        help="which kernels accept the programs of objects, and what they cost",
        description="Loads each program of objects or sources on kernels, and shows the verifier's verdict. "
        "Exit codes: 0 all are accepted, 1 a program is refused, or a kernel gave no answer, 2 wrong usage.",
    )
    verify.add_argument(
        "file", nargs="+", type=Path, help="BPF objects, or sources .bpf.c, which are compiled"
    )
    verify.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME[,NAME...]",
        help="kernels, as --bpf-kernel: host, a name, a glob, all (default: the running kernel, or "
        "the newest where this user can't load programs here)",
    )
    verify.add_argument(
        "-G",
        "--set-global",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a global variable before the load: a number, a name of its enum, text, or JSON",
    )
    verify.add_argument(
        "--program", action="append", default=[], metavar="GLOB", help="only programs of these names"
    )
    verify.add_argument("--clang", help="the clang to compile with (default: $CLANG, else the newest)")
    verify.add_argument(
        "--cflags", action="append", default=[], metavar="FLAG", help="one more argument for clang"
    )
    verify.add_argument("-I", "--include", action="append", default=[], type=Path, help="a folder of headers")
    verify.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="as --bpf-vm-timeout (default: 60)"
    )
    verify.add_argument("--json", action="store_true", help="print JSON")
    verify.set_defaults(run=_verify, usage_error=verify.error)


def _verify(arguments: argparse.Namespace) -> int:
    from pytest_bpfmaps.cost.verdict_table import kernels_in_order, losses, refusals, table
    from pytest_bpfmaps.cost.verdicts import ACCEPTED, unknown_variables
    from pytest_bpfmaps.errors import shown_lines

    values = dict(_value(arguments, text) for text in arguments.set_global)
    _check_kernels(arguments.kernel)
    objects, failed = _objects(arguments)
    if values:
        unknown_variables(objects, values)
    cells = [*failed, *_ask(arguments, objects, values)]
    kernels = kernels_in_order(cells)
    if arguments.json:
        json.dump({"kernels": kernels, "programs": cells}, sys.stdout, indent=1)
        print()
    else:
        print(shown_lines("\n".join([*table(cells, kernels), *refusals(cells), *losses(cells)])))
    return 0 if cells and all(cell["verdict"] == ACCEPTED for cell in cells) else 1


def _value(arguments: argparse.Namespace, text: str) -> tuple[str, Any]:
    from pytest_bpfmaps.cost.variants import value_of

    name, equals, value = text.partition("=")
    if not equals or not name:
        arguments.usage_error(f"-G {text}: give a name and a value: -G {name or 'rounds'}=8")
    return name.strip(), value_of(value)


def _check_kernels(patterns: Sequence[str]) -> None:
    """Raises `VmError` for a kernel that is not there, before anything is compiled."""
    from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

    for pattern in (part.strip() for text in patterns for part in text.split(",")):
        if pattern and pattern not in (HOST, "auto"):
            Catalogue().select(pattern)


def _objects(arguments: argparse.Namespace) -> tuple[dict[str, Path], list[dict[str, Any]]]:
    """Returns the objects by name. Compiles sources; a source that clang refuses is a cell of its own."""
    from pytest_bpfmaps.compiler import CompileRequest
    from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
    from pytest_bpfmaps.cost.verdicts import REFUSED, Verdict
    from pytest_bpfmaps.errors import BpfError
    from pytest_bpfmaps.vm.kernels.vmlinux_choice import Setting

    compiler = LocalCompiler(arguments.clang, vmlinux=lambda: Setting().choose().path)
    found: dict[str, Path] = {}
    failed = []
    names = _names(arguments.file)
    for name, path in zip(names, arguments.file, strict=True):
        if path.suffix != ".c":
            found[name] = path.absolute()
            continue
        include = (str(path.absolute().parent), *(str(folder.absolute()) for folder in arguments.include))
        request = CompileRequest(source=str(path.absolute()), include=include, cflags=tuple(arguments.cflags))
        try:
            found[name] = compiler.compile(request)
        except BpfError as error:
            refused = Verdict(name, "", REFUSED, message=str(error), why=str(error))
            failed.append({**refused.to_plain(), "kernel": ""})
    return found, failed


def _names(paths: Sequence[Path]) -> list[str]:
    """Returns the files' names, or their paths where two files have the same name.

    A name that a terminal would not print is quoted: it may have line ends, or bytes that are no text.
    """
    from pytest_bpfmaps.errors import shown

    names = [path.name for path in paths]
    pairs = zip(names, paths, strict=True)
    return [shown(name if names.count(name) == 1 else str(path)) for name, path in pairs]


def _ask(
    arguments: argparse.Namespace, objects: dict[str, Path], values: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Runs pytest, which loads the objects on each kernel. Yields each verdict, with its ``kernel``."""
    if not objects:
        return
    with tempfile.TemporaryDirectory(prefix="bpfmaps-verify-") as folder:
        answers, job = Path(folder, "answers"), Path(folder, "job.json")
        facts = {
            "objects": [
                {"name": name, "path": str(path), "checked": _is_sound(path)}
                for name, path in objects.items()
            ],
            "globals": values,
            "programs": arguments.program or ["*"],
            "answers": str(answers),
        }
        job.write_text(json.dumps(facts))
        answers.touch()
        told = _run(arguments, job)
        lines = [json.loads(line) for line in answers.read_text().splitlines()]
        yield from _cells(list(objects), lines, told)


def _is_sound(path: Path) -> bool:
    """Returns whether the object's types are sound. If they are not, each kernel's answer says why.

    Guests take the answer, because an emulated CPU would need seconds for it.
    """
    from pytest_bpfmaps.compiler.validate import check_object
    from pytest_bpfmaps.errors import BpfError

    if not path.is_file():  # a device may have no end
        return False
    try:
        check_object(path.read_bytes(), str(path))
    except (BpfError, OSError):
        return False
    return True


def _run(arguments: argparse.Namespace, job: Path) -> str:
    """Runs pytest, and returns what it printed."""
    (job.parent / "pytest.toml").write_text("[pytest]\n")
    options = [f"--bpf-kernel={text}" for text in arguments.kernel]
    options += [f"--bpf-vm-timeout={arguments.timeout}", f"--bpf-verify-job={job}"]
    options += [f"--rootdir={job.parent}", "-c", str(job.parent / "pytest.toml")]
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
    command += ["-p", "bpfmaps", "-p", "pytest_bpfmaps.matrix.verify_items", *options, str(job)]
    if find_spec("xdist") is not None:
        command += ["-p", "xdist"]
    # Only our plugin is loaded: another one could leave objects out, or change their order.
    environment = {name: value for name, value in os.environ.items() if name not in _OF_PYTEST}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run(
        command,
        cwd=job.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


def _cells(names: list[str], lines: list[dict[str, Any]], told: str) -> Iterator[dict[str, Any]]:
    from pytest_bpfmaps.cost.verdict_table import kernels_in_order
    from pytest_bpfmaps.cost.verdicts import LOST, Verdict
    from pytest_bpfmaps.errors import VmError

    order = kernels_in_order(lines)  # they answer in any order
    lines.sort(key=lambda line: order.index(line["kernel"]) if line["kernel"] else -1)

    if not lines:
        raise VmError("no kernel gave an answer", on=f"about {', '.join(names)}", details=told.strip())
    answered = {(line["object"], line["kernel"]) for line in lines if "verdicts" in line}
    for number, name in enumerate(names):
        for line in lines:
            if line["object"] == str(number) and "verdicts" in line:
                yield from ({**cell, "kernel": line["kernel"]} for cell in line["verdicts"])
            elif line["object"] in (str(number), "") and (str(number), line["kernel"]) not in answered:
                text = line["lost"].strip()
                yield {**Verdict(name, "", LOST, message=text, why=text).to_plain(), "kernel": line["kernel"]}
