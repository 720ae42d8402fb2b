"""Links several BPF objects into one with libbpf's linker, as ``bpftool gen object`` does."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pytest_bpfmaps.cache.stored_files import (
    digest,
    discard,
    own,
    place,
    read,
    scratch_folder,
    write_checked,
)
from pytest_bpfmaps.compiler.cache import code_of_makers
from pytest_bpfmaps.compiler.cache_in_use import steady, use
from pytest_bpfmaps.compiler.linked_objects import facts, facts_file
from pytest_bpfmaps.errors import CompileError, strerror
from pytest_bpfmaps.paths import objects_dir

# libbpf before 1.5 says it of an extern function of which it asks for the size
_SHARED_FUNCTION = re.compile(r"global '(\w+)': failed to resolve size of underlying type")


def link(objects: Sequence[Path], root: Path | None = None) -> Path:
    """Returns the path of one object made of `objects`, from the cache if the same were linked before.

    The object has the name of the first. `root` is the cache (default: `paths.objects_dir`). Raises
    `CompileError` with libbpf's message for objects that do not fit together.
    """
    from pytest_bpfmaps.libbpf import version

    root = root or own(objects_dir())
    try:
        contents = [path.read_bytes() for path in objects]
        names = [str(path) for path in objects]
        key = digest(code_of_makers(), repr(version()), *names, *contents)
        stem = objects[0].name.split(".")[0]
        target = root / f"{stem}-{key[:12]}" / f"{stem}.bpf.o"
        with steady(root):
            is_there = _is_intact(target)
            use(root, target.parent)
        if not is_there:
            with scratch_folder(root) as folder:
                _link(objects, folder / "out.o")
                target.parent.mkdir(parents=True, exist_ok=True)
                known = {"objects": names, "digest": digest((folder / "out.o").read_bytes())}
                write_checked(facts_file(target), json.dumps(known))
                place(folder / "out.o", target)
    except OSError as e:
        why = strerror(e.errno or 0)
        raise CompileError("cannot link", on=_names(objects), why=why, errno=e.errno) from e
    return target


def _is_intact(target: Path) -> bool:
    """Returns whether the object was linked before, and is unchanged since."""
    known = facts(target).get("digest")
    if known is None or not target.exists():
        return False
    intact = bool(digest(read(target)) == known)
    if not intact:
        discard(target)
    return intact


def _names(objects: Sequence[Path]) -> str:
    return " and ".join(path.name for path in objects)


def _link(objects: Sequence[Path], target: Path) -> None:
    from pytest_bpfmaps.libbpf import capture_log, ffi, lib, version

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
        why = said[0] if said else strerror(result)
        fix = "if both define a name, make it static or __weak in one of them, or declare it extern there"
        if shared := _SHARED_FUNCTION.search(log.text):
            said = ["", *said]
            mine = ".".join(map(str, version()))
            why = f"both call the kernel's function {shared[1]}, and libbpf {mine} can't link such objects"
            fix = f"call {shared[1]} in one of them only, or use libbpf 1.5 or later"
        raise CompileError(
            "cannot link",
            on=_names(objects),
            why=why,
            details="\n".join(said[1:]) or None,
            fix=fix,
            errno=-result or errno.EINVAL,
        )
