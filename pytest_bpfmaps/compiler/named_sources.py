"""Makes one object of the sources that a test names: finds, compiles, and links them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from pytest_bpfmaps.compiler.request import Compiler, CompileRequest
from pytest_bpfmaps.compiler.sources import find_source
from pytest_bpfmaps.errors import CompileError

Source = str | PathLike[str]


class Sources:
    """Compiles with `compiler`. `folders` are searched for sources and headers, in order."""

    def __init__(self, compiler: Compiler, folders: Sequence[Path]) -> None:
        self._compiler = compiler
        self._folders = folders
        self._found: dict[str, Path] = {}  # by the test's name for it

    def compile(
        self,
        source: Source | Sequence[Source] | None,
        code: str | None,
        cflags: Sequence[str],
        defines: Mapping[str, Any] | None,
        *,
        counting: bool = False,
        mcdc: bool = False,
    ) -> Path:
        """Returns the path of the compiled object. Several sources and objects are linked into one.

        With `counting` the object counts which of its lines run, and with `mcdc` it also records the values
        of conditions. Raises `CompileError` with clang's diagnostics, or with libbpf's when the objects can't
        be linked.
        """
        several = each_source(source)
        if len(several) > 1 and code is None:
            how = {"counting": counting, "mcdc": mcdc}
            made = [self.compile(each, None, cflags, defines, **how) for each in several]
            return self._compiler.link(made)
        source = several[0] if several else None
        if (source is None) == (code is None):
            raise CompileError(
                "cannot compile",
                why="neither a source nor code is given"
                if source is None
                else "both a source and code are given",
                fix='bpf.load("x.bpf.c") or bpf.load(code="…")',
            )
        path = None
        if source is not None:
            path = self._found[os.fspath(source)] = find_source(source, self._folders)
        if path is not None and path.suffix != ".c":
            return path
        if isinstance(cflags, str):
            fix = f"give a list: cflags={cflags.split()!r}"
            raise CompileError("cannot compile", on=f"with cflags {cflags!r}", why="it is one text", fix=fix)
        _check_defines(defines)
        request = CompileRequest(
            source=None if path is None else str(path),
            code=code,
            include=tuple(str(f) for f in self._folders),
            cflags=tuple(cflags),
            defines=tuple((n, _as_macro(v)) for n, v in (defines or {}).items()),
            counting=counting,
            mcdc=mcdc,
        )
        return self._compiler.compile(request)

    def found(self, source: Source | Sequence[Source] | None) -> list[Path]:
        """Returns the absolute path of each source, where `compile` has found it; none for C text."""
        return [self._found[os.fspath(each)] for each in each_source(source)]

    def counting(
        self,
        source: Source | Sequence[Source] | None,
        code: str | None,
        cflags: Sequence[str],
        defines: Mapping[str, Any] | None,
    ) -> Callable[[bool], Path] | None:
        """Returns a function that makes the object that counts; None if no source is C text.

        The function's argument says whether that object also records the values of conditions.
        """
        if code is None and not any(os.fspath(each).endswith(".c") for each in each_source(source)):
            return None
        return lambda mcdc: self.compile(source, code, cflags, defines, counting=True, mcdc=mcdc)

    def beside(self, path: Source) -> Path:
        """Returns the path of a test's file: in the first of the folders that has it, else `path` itself."""
        places = [folder / path for folder in self._folders]
        return next((place for place in places if place.exists()), Path(path))


def _as_macro(value: Any) -> str | None:
    """Returns a macro's value as C text: True is ``1``, because C has no ``True``."""
    return None if value is None else str(int(value) if isinstance(value, bool) else value)


def _check_defines(defines: object) -> None:
    """Raises `CompileError` for what is no mapping of macros."""
    if defines is None or isinstance(defines, Mapping):
        return
    words = [defines] if isinstance(defines, str) else defines
    pairs = [str(word).partition("=") for word in words] if isinstance(words, Iterable) else []
    wanted = {name: value if is_given else None for name, is_given, value in pairs} or {"NAME": "1"}
    raise CompileError(
        "cannot compile",
        on=f"with defines={defines!r}",
        why=f"it is {type(defines).__name__}, not a dict",
        fix=f"give each macro its value, or None: defines={wanted!r}",
    )


def each_source(source: Source | Sequence[Source] | None) -> list[Source]:
    """Returns the sources that a test gave: none, one, or several."""
    if source is None:
        return []
    return [source] if isinstance(source, str | PathLike) else list(source)
