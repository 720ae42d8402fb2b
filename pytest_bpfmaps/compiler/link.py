"""Linking several BPF objects into one with libbpf's linker, as ``bpftool gen object`` does."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import CompileError, strerror
from ..paths import objects_dir
from .store import digest, scratch_folder, write_atomically

_FORMAT = "1"


def link(objects: Sequence[Path], root: Path | None = None) -> Path:
    """The path of one object made of `objects`, from the cache when the same ones were linked before.

    It has the name of the first. `root` is the cache (default: `paths.objects_dir`). Raises `CompileError`
    with the words of libbpf for objects that do not fit together.
    """
    from ..libbpf import version

    root = root or objects_dir()
    try:
        contents = [path.read_bytes() for path in objects]
        names = [str(path) for path in objects]
        key = digest(_FORMAT, repr(version()), *names, *contents)
        stem = objects[0].name.split(".")[0]
        target = root / f"{stem}-{key[:12]}" / f"{stem}.bpf.o"
        if not target.exists():
            with scratch_folder(root) as folder:
                _link(objects, folder / "out.o")
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(_inputs_file(target), json.dumps(names))
                os.replace(folder / "out.o", target)
    except OSError as e:
        why = strerror(e.errno or 0)
        raise CompileError("cannot link", on=_names(objects), why=why, errno=e.errno) from e
    return target


def linked_inputs(path: Path) -> list[Path]:
    """The objects that the one at `path` was linked of by `link`; none for any other object."""
    try:
        return [Path(name) for name in json.loads(_inputs_file(path).read_text())]
    except (OSError, ValueError):
        return []


def _inputs_file(path: Path) -> Path:
    return path.with_suffix(".inputs")


def _names(objects: Sequence[Path]) -> str:
    return " and ".join(path.name for path in objects)


def _link(objects: Sequence[Path], target: Path) -> None:
    from ..libbpf import capture_log, ffi, lib

    with capture_log() as log:
        linker = lib.bpf_linker__new(os.fsencode(target), ffi.NULL)
        result = -ffi.errno if linker == ffi.NULL else 0
        for path in objects:
            if result == 0:
                result = lib.bpf_linker__add_file(linker, os.fsencode(path), ffi.NULL)
        if result == 0:
            result = lib.bpf_linker__finalize(linker)
        if linker != ffi.NULL:
            lib.bpf_linker__free(linker)
    if result < 0:
        said = [line for line in log.text.splitlines() if line.strip()]
        raise CompileError(
            "cannot link",
            on=_names(objects),
            why=said[0] if said else strerror(result),
            details="\n".join(said[1:]) or None,
            fix="what both define must be static in one of them, __weak, or declared extern there",
            errno=-result or errno.EINVAL,
        )
