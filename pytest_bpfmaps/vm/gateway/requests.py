"""Does what a guest asks of its host: compiles, links, stores a file, or tells a digest or what code ran.

A guest is not trusted. So clang gets only options of a list, and a request may name only regular files.
Reading a device or a pipe may never end, and may have effects.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable
from hashlib import file_digest
from typing import TYPE_CHECKING

from pytest_bpfmaps.errors import CompileError
from pytest_bpfmaps.vm.gateway.artifacts import Artifacts

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_bpfmaps.compiler.request import CompileRequest
    from pytest_bpfmaps.vm.executed.session import ExecutedCode

_LARGEST = 256 << 20  # bytes of a source, an object, or a kernel's BTF


class Requests:
    """Answers requests. `clang` is as for `--bpf-clang`; `vmlinux` tells where ``vmlinux.h`` comes from.

    `executed` is the record of what ran in this guest, where there is one. `artifacts` are the files that it
    may store. `terminal` lends pytest's terminal, and takes it back. `gdb` has QEMU serve a debugger.
    `line` reads pytest's input.
    """

    def __init__(
        self,
        clang: str | None,
        vmlinux: Callable[[], str | None],
        executed: ExecutedCode | None = None,
        artifacts: Artifacts | None = None,
        *,
        terminal: Callable[[str], str] | None = None,
        gdb: Callable[[str], str] | None = None,
        line: Callable[[str], str] | None = None,
    ) -> None:
        self._artifacts = artifacts or Artifacts(None)
        self._clang = clang
        self._vmlinux = vmlinux
        self._executed = executed
        self._more = {"terminal": terminal, "gdb": gdb, "line": line}

    def answer(self, call: str, argument: str) -> str:
        """Returns the answer to a request. Raises whatever error the guest should see."""
        calls = {"compile": self._compile, "digest": _digest, "link": _link}
        calls["artifact"] = self._artifacts.store
        if self._executed is not None:
            calls["executed"] = self._executed.answer
        calls |= {name: do for name, do in self._more.items() if do is not None}
        return calls[call](argument)

    def _compile(self, argument: str) -> str:
        """Returns the object's path and clang's warnings, as JSON."""
        from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
        from pytest_bpfmaps.compiler.request import CompileRequest

        request = CompileRequest.from_json(argument)
        _check(request)
        warnings: list[str] = []
        compiler = LocalCompiler(self._clang, warn=warnings.append, vmlinux=self._vmlinux)
        return json.dumps([str(compiler.compile(request)), "".join(warnings)])


def _check(request: CompileRequest) -> None:
    """Raises CompileError for a request that could do more than compile."""
    from pytest_bpfmaps.compiler.guest_options import check_options

    defines = [f"-D{name}" if value is None else f"-D{name}={value}" for name, value in request.defines]
    check_options([*defines, *request.cflags])
    _check_files("compile", filter(None, (request.source, request.btf)))


def _check_files(what: str, paths: Iterable[str | Path]) -> None:
    """Raises CompileError for a path that exists and is no regular file, or a file that is too large."""
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue  # opening it will raise the error
        if not stat.S_ISREG(status.st_mode):
            raise CompileError(f"cannot {what}", on=str(path), why="it is no file", fix="name a file")
        if status.st_size > _LARGEST:
            why = f"it has {status.st_size} bytes, and a guest may name a file of up to {_LARGEST}"
            raise CompileError(f"cannot {what}", on=str(path), why=why, fix="do that on the host")


def _digest(path: str) -> str:
    """Returns the SHA-256 of a file as the host sees it; empty when there is none."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return file_digest(file, "sha256").hexdigest() if regular else ""
    except (OSError, ValueError):  # ValueError: the path may have a NUL
        return ""


def _link(paths: str) -> str:
    """Returns the path of the object that is linked of several."""
    from pathlib import Path

    from pytest_bpfmaps.compiler.linker import link

    objects = [Path(path) for path in json.loads(paths)]
    _check_files("link", objects)
    return str(link(objects))
