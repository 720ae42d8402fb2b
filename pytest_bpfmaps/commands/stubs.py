"""`bpfmaps stubs`: prints a Python module with the types of objects, for type checkers and editors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def register(commands: Any) -> None:
    """Adds ``stubs`` to argparse's `commands`."""
    stubs = commands.add_parser(
        "stubs",
        help="the types of maps, programs, global variables and records, for type checkers and editors",
        description="Prints a Python module with the types of BPF objects. Write it beside the tests, and "
        "annotate the fixture bpf with its class Bpf: bpfmaps stubs bpf/*.bpf.c > tests/bpf_types.py",
    )
    stubs.add_argument(
        "file", nargs="+", type=Path, help="BPF objects, or sources .bpf.c, which are compiled"
    )
    stubs.add_argument("--clang", help="the clang to compile with (default: $CLANG, else the newest)")
    stubs.add_argument(
        "--cflags", action="append", default=[], metavar="FLAG", help="one more argument for clang"
    )
    stubs.add_argument("-I", "--include", action="append", default=[], type=Path, help="a folder of headers")
    stubs.set_defaults(run=_stubs)


def _stubs(arguments: argparse.Namespace) -> None:
    from pytest_bpfmaps.compiler import CompileRequest
    from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
    from pytest_bpfmaps.objects.stubs import write_stubs
    from pytest_bpfmaps.vm.kernels.vmlinux_choice import Setting

    compiler = LocalCompiler(arguments.clang, vmlinux=lambda: Setting().choose().path)
    objects: list[tuple[str, Path]] = []
    for path in arguments.file:
        same = [name for name, _ in objects if name == path.name]
        name = str(path) if same else path.name  # as `Bpf.load` gets it
        if path.suffix != ".c":
            objects.append((name, path))
            continue
        include = (str(path.absolute().parent), *(str(folder.absolute()) for folder in arguments.include))
        request = CompileRequest(source=str(path.absolute()), include=include, cflags=tuple(arguments.cflags))
        objects.append((name, compiler.compile(request)))
    print(write_stubs(objects), end="")
