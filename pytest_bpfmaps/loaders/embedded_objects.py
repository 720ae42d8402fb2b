"""Finds the BPF objects that a loader loads: in its binary, as skeletons have them, or in its arguments."""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.errors import BpfError
from pytest_bpfmaps.libbpf import lib, to_str
from pytest_bpfmaps.libbpf.calls import walk
from pytest_bpfmaps.maps.create_errors import Attributes
from pytest_bpfmaps.objects.diagnosis.libbpf_log import attributes_of
from pytest_bpfmaps.objects.object_file import ObjectFile, open_object

# an ELF header of 64 bits, for the machine 247 (EM_BPF), in the machine's byte order
_HEADER = re.compile(rb"\x7fELF\x02\x01\x01.{9}\x01\x00\xf7\x00", re.DOTALL)
_SECTIONS = struct.Struct("<Q10xHH")  # e_shoff at 40, e_shentsize at 58, e_shnum
_LARGEST = 256 << 20  # bytes of a file that is searched


@dataclass(frozen=True, slots=True)
class NeededProgram:
    """A program in an object. The numbers are those of ``enum bpf_prog_type`` and ``bpf_attach_type``."""

    name: str
    section: str
    type: int
    attach_type: int


@dataclass(frozen=True, slots=True)
class NeededMap:
    """A map in an object. `type` is a number of ``enum bpf_map_type``. `is_data` is for a data section.

    `attributes` are those that the object has; its loader may change them.
    """

    name: str
    type: int
    is_data: bool
    attributes: Attributes


def needed_by(files: Iterable[Path]) -> Iterator[NeededProgram | NeededMap]:
    """Yields what the objects in the files would load. It leaves out what libbpf can't open."""
    for file in _opened(files):
        yield from _parts(file)


def types_in(files: Iterable[Path]) -> list[Codecs]:
    """Returns the types of the objects in the files. It leaves out what libbpf can't open."""
    return [file.codecs for file in _opened(files) if file.codecs is not None]


def _opened(files: Iterable[Path]) -> Iterator[ObjectFile]:
    """Yields the objects in the files. Each is closed when the next one is asked for."""
    for data in chain.from_iterable(map(_objects_in, files)):
        with tempfile.NamedTemporaryFile(suffix=".bpf.o") as copy, suppress(BpfError):
            copy.write(data)
            copy.flush()
            # which checks it: any bytes may look like an object
            with open_object(Path(copy.name), Path(copy.name).name) as file:
                yield file


def _parts(file: ObjectFile) -> Iterator[NeededProgram | NeededMap]:
    for each in walk(lib.bpf_object__next_program, file.handle):
        if lib.bpf_program__autoload(each):
            name, section = to_str(lib.bpf_program__name(each)), to_str(lib.bpf_program__section_name(each))
            types = lib.bpf_program__type(each), lib.bpf_program__expected_attach_type(each)
            yield NeededProgram(name, section, *map(int, types))
    for each in walk(lib.bpf_object__next_map, file.handle):
        if lib.bpf_map__autocreate(each):
            name, is_data = to_str(lib.bpf_map__name(each)), bool(lib.bpf_map__is_internal(each))
            short = name[name.find(".") :] if is_data else name  # without the name of the temporary copy
            yield NeededMap(short, int(lib.bpf_map__type(each)), is_data, attributes_of(each))


def _objects_in(path: Path) -> Iterator[bytes]:
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return
        data = path.read_bytes()
    except OSError:
        return
    for found in _HEADER.finditer(data):
        start = found.start()
        if len(data) - start < 64:
            return
        table, size, count = _SECTIONS.unpack_from(data, start + 40)
        if start + table + size * count <= len(data):
            yield data[start : start + table + size * count]
