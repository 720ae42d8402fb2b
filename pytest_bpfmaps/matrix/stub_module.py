"""Writes ``bpf_types.py`` before the collection, with ``bpf_stubs = true``: see `bpfmaps stubs`."""

from __future__ import annotations

from pathlib import Path

import pytest

NAME = "bpf_types.py"


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Writes the module if it has changed. The test files that are collected next may import it."""
    config = session.config
    folders = [config.rootpath / path for path in config.getini("testpaths")]
    target = next((folder for folder in folders if folder.is_dir()), config.rootpath) / NAME
    text = _text(config)
    if not target.exists() or target.read_text() != text:
        target.write_text(text)


def _text(config: pytest.Config) -> str:
    """Returns the module's text. A source that can't be compiled is left out, and named in a comment."""
    from pytest_bpfmaps.compiler import CompileRequest
    from pytest_bpfmaps.errors import BpfError, CompileError
    from pytest_bpfmaps.matrix.compilers import compiler_of
    from pytest_bpfmaps.objects.stubs import write_stubs

    folders = [config.rootpath / path for path in config.getini("bpf_paths")]
    compiler = compiler_of(config)
    objects: dict[str, Path] = {}
    comments = []
    for source in sorted(path for folder in folders for path in folder.glob("*.bpf.c")):
        if source.name in objects:
            continue  # `Bpf.load` finds the one in the first folder
        request = CompileRequest(source=str(source), include=tuple(map(str, folders)))
        try:
            made = compiler.compile(request)
            write_stubs([(source.name, made)])
            objects[source.name] = made
        except BpfError as error:
            why = "clang refuses it" if isinstance(error, CompileError) else error.why
            comments.append(f"# {source.name} is left out: {why}\n")
    return write_stubs(objects.items()) + "".join(comments)
