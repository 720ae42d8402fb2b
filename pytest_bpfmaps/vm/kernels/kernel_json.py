"""Writes the digests of a stored kernel's parts into its ``kernel.json``, so that damage shows.

A part that came out of the kernel's image is made again. Any other part has to be fetched again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pytest_bpfmaps.cache.sparse_files import digest
from pytest_bpfmaps.cache.stored_files import place, read_any, tell, unsealed, write_json
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels.kernel_image import read_btf, read_config, read_image, unpack_vmlinux

MODULES = "lib/modules"
_FACTS = "kernel.json"


def write_facts(tree: Path, facts: Mapping[str, Any]) -> None:
    """Writes ``kernel.json`` with sizes and digests of what is in `tree`. Raises OSError."""
    write_json(
        tree / _FACTS, {**facts, "parts": {name: _measure(tree / name) for name in _names(tree, facts)}}
    )


def read_facts(tree: Path) -> dict[str, Any]:
    """Returns what ``kernel.json`` says. Raises OSError, ValueError when it is not what was written."""
    try:
        facts = json.loads(read_any(tree / _FACTS))
    except ValueError:
        raise ValueError(f"{_FACTS} is no JSON") from None
    if not isinstance(facts, dict):
        raise ValueError(f"{_FACTS} is no JSON object")
    try:
        return unsealed(facts) if "digest" in facts else facts  # an older version wrote no digest
    except (ValueError, TypeError):
        raise ValueError(f"{_FACTS} is not what was written") from None


def check(tree: Path) -> None:
    """Compares the sizes of files, and makes again what can be made.

    Raises OSError, ValueError for other damage.
    """
    known = read_facts(tree).get("parts", {})
    files = {name: size for name, (size, _) in known.items() if name != MODULES}
    _mend(tree, [name for name, size in files.items() if _size(tree / name) != size])


def check_content(tree: Path, *wanted: str) -> None:
    """Compares the content of the parts whose names begin with one of `wanted`, by default of all.

    Raises as `check` does. If an older version of this package stored the kernel, its digests are written
    now.
    """
    facts = read_facts(tree)
    if "parts" not in facts:
        if not wanted or "vmlinux" in wanted:  # the caller boots it
            with suppress(PermissionError):
                _adopt(tree, facts)
        return
    names = [name for name in facts["parts"] if not wanted or name.startswith(wanted)]
    _mend(tree, [name for name in names if _measure(tree / name) != facts["parts"][name]])


def _names(tree: Path, facts: Mapping[str, Any]) -> list[str]:
    names = [facts["image"], "vmlinux", "btf", f"boot/config-{facts['release']}", MODULES]
    return [name for name in names if (tree / name).exists()]


def _measure(path: Path) -> list[Any]:
    """Returns size and digest of a file, or of everything in a folder."""
    if not path.is_dir():
        with suppress(OSError):
            return [path.stat().st_size, digest(path)]
        return [None, ""]
    found, size = blake2b(digest_size=16), 0
    for file in _files(os.fspath(path)):
        with open(file, "rb", buffering=0) as opened:
            content = opened.read()
        found.update(f"{os.path.relpath(file, path)}\0{len(content)}\0".encode(errors="surrogateescape"))
        found.update(content)
        size += len(content)
    return [size, found.hexdigest()]


def _files(folder: str) -> Iterator[str]:
    """Gives the files below a folder, always in the same order."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    yield from (entry.path for entry in entries if entry.is_file())
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _mend(tree: Path, damaged: list[str]) -> None:
    facts = read_facts(tree)
    lost = [name for name in damaged if name in (facts["image"], MODULES)]
    if lost:
        raise ValueError(f"{lost[0]} is not what was stored")
    if not damaged:
        return
    with tempfile.TemporaryDirectory(dir=tree) as name:
        made = _take_apart(tree, facts, Path(name))
        for part in damaged:
            if part not in made or _measure(made[part]) != facts["parts"][part]:
                raise ValueError(f"{part} is not what was stored")
            tell(f"{tree / part} is made again: it was damaged")
            place(made[part], tree / part)


def _take_apart(tree: Path, facts: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Returns the parts that come out of the image, by name. Raises ValueError when the image is damaged."""
    config = f"boot/config-{facts['release']}"
    made = {"vmlinux": folder / "vmlinux"}
    try:
        unpack_vmlinux(read_image(tree / facts["image"]), made["vmlinux"])
        contents = {"btf": read_btf(made["vmlinux"]), config: read_config(made["vmlinux"])}
    except VmError as error:
        raise ValueError(f"{facts['image']} is damaged: {error.why}") from error
    for number, (name, content) in enumerate(contents.items()):
        if content is not None:
            made[name] = folder / str(number)
            made[name].write_bytes(content)
    return made


def _adopt(tree: Path, facts: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory(dir=tree) as name:
        made = _take_apart(tree, facts, Path(name))
        for part in ("vmlinux", "btf"):
            if part in made and (tree / part).exists() and digest(made[part]) != digest(tree / part):
                tell(f"{tree / part} is made again: it was damaged")
                place(made[part], tree / part)
    write_facts(tree, facts)
