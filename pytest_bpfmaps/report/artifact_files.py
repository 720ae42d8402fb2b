"""Collects the files of ``--bpf-artifacts`` in the process of a test, while its objects are still there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pytest_bpfmaps.btf import Record
from pytest_bpfmaps.btf.enumerator import Enumerator
from pytest_bpfmaps.errors import BpfError, ClosedError, MapKeyError
from pytest_bpfmaps.maps.families.hash import HashMap
from pytest_bpfmaps.triggers.pcap import Frame, pcap_bytes

MOST_ELEMENTS = 10_000  # of a map
LARGEST = 16 << 20  # bytes of a file
Files = dict[str, bytes]


def collect(fixtures: Iterable[Any], others: Iterable[Any], error: BaseException | None) -> Files:
    """Returns the files by their relative paths.

    `fixtures` are the `Bpf` objects of the test, `others` its other fixtures. What can't be read has a file
    with the reason.
    """
    files: Files = {}
    bpfs = list(fixtures)
    _try(files, "objects", lambda: _objects(bpfs))
    _try(files, "verifier", lambda: _logs(bpfs, error))
    _try(files, "maps", lambda: _maps(bpfs))
    _try(files, "packets", lambda: _runs(bpfs))
    _try(files, "packets-seen", lambda: _sniffed(others))
    return files


def _try(files: Files, what: str, read: Callable[[], Iterator[tuple[str, bytes]]]) -> None:
    try:
        for name, data in read():
            path = _free(files, name)
            if len(data) > LARGEST:
                files[f"{path}.txt"] = f"left out: it has {len(data)} bytes\n".encode()
            else:
                files[path] = data
    except Exception as error:  # the test's own failure must be reported in any case
        files[f"{what}.error.txt"] = f"{type(error).__name__}: {error}\n".encode(errors="replace")


def _free(files: Files, name: str) -> str:
    """Returns a path that no file has yet: two objects may have maps of one name."""
    path, number = Path(name), 1
    while str(path) in files:
        number += 1
        stem, dot, rest = Path(name).name.partition(".")
        path = Path(name).with_name(f"{stem}-{number}{dot}{rest}")
    return str(path)


def _objects(bpfs: Sequence[Any]) -> Iterator[tuple[str, bytes]]:
    for opened in (one for each in bpfs for one in each.opened):
        name = plain_name(opened.name.removesuffix(".c").removesuffix(".o"))
        yield f"objects/{name}.o", Path(opened.path).read_bytes()


def _logs(bpfs: Sequence[Any], error: BaseException | None) -> Iterator[tuple[str, bytes]]:
    if log := getattr(error, "log", ""):
        yield "verifier/refused.log", log.encode(errors="replace")
    for program in _programs(bpfs):
        if log := _log_of(program):
            yield f"verifier/{plain_name(program.name)}.log", log.encode(errors="replace")


def _maps(bpfs: Sequence[Any]) -> Iterator[tuple[str, bytes]]:
    for one in (m for each in bpfs for loaded in each.loaded for m in loaded.maps):
        try:
            facts = map_facts(one)
        except ClosedError:
            continue
        yield f"maps/{plain_name(one.name)}.json", json.dumps(facts, indent=1).encode()


def map_facts(one: Any) -> dict[str, Any]:
    """Returns what there is to tell of a map, in JSON's types. Raises what reading the map raises."""
    facts: dict[str, Any] = {"name": one.name, "type": str(one.type), "id": one.id}
    facts["max_entries"] = one.max_entries
    if not isinstance(one, HashMap):
        return facts | {"elements": None, "note": f"elements of the type {one.type} are not kept"}
    try:
        elements = list(islice(_elements(one), MOST_ELEMENTS + 1))
    except ClosedError:
        raise
    except (BpfError, OSError) as error:
        return facts | {"elements": None, "note": str(error)}
    shown = [{"key": plain(key), "value": plain(value)} for key, value in elements[:MOST_ELEMENTS]]
    return facts | {"elements": shown, "complete": len(elements) <= MOST_ELEMENTS}


def _elements(one: Any) -> Iterator[tuple[Any, Any]]:
    if one.max_entries <= 1 << 16:
        yield from one.snapshot().items()
        return
    key = None
    while True:
        try:
            key = one.get_next_key(key)
        except MapKeyError:
            return
        if key is None:
            return
        try:
            yield key, one[key]
        except MapKeyError:  # a program has removed it
            continue


def plain(value: Any) -> Any:
    """Returns a key or value in JSON's types: bytes in hexadecimal, a member of an enum by its name."""
    if isinstance(value, Enumerator):
        return value.name
    if isinstance(value, bool | float | str) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Record):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [plain(each) for each in value]
    return str(value)


def _runs(bpfs: Sequence[Any]) -> Iterator[tuple[str, bytes]]:
    for program in _programs(bpfs):
        runs = [(time, given, result) for time, given, result in program.runs if given]
        if runs:
            name = plain_name(program.name)
            yield f"packets/{name}-in.pcap", pcap_bytes(Frame(given, time) for time, given, _ in runs)
            yield f"packets/{name}-out.pcap", pcap_bytes(Frame(bytes(r.data), time) for time, _, r in runs)


def _sniffed(others: Iterable[Any]) -> Iterator[tuple[str, bytes]]:
    if "pytest_bpfmaps.triggers.netns" not in sys.modules:
        return
    from pytest_bpfmaps.triggers.netns import NetNsFactory
    from pytest_bpfmaps.triggers.packets import Sniffer

    factories = [each for each in others if isinstance(each, NetNsFactory)]
    for namespace in (made for factory in factories for made in factory.made):
        for sniffer in (one for one in namespace.kept if isinstance(one, Sniffer)):
            yield f"packets/{plain_name(sniffer.on)}.pcap", pcap_bytes(Frame(bytes(p)) for p in sniffer)


def _programs(bpfs: Sequence[Any]) -> Iterator[Any]:
    return (program for each in bpfs for loaded in each.loaded for program in loaded.programs)


def _log_of(program: Any) -> str:
    try:
        return str(program.verifier.log)
    except ClosedError:
        return ""


def plain_name(name: str) -> str:
    """Returns a name that any file system and any upload takes: letters, digits, and ``._+=@,[]-``."""
    made = "".join(c if (c.isalnum() and c.isascii()) or c in "._+=@,[]-" else "_" for c in name)
    return made.lstrip(".")[:120] or "_"
