"""Opens an object file with libbpf, and finds its maps and programs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pytest_bpfmaps.attach.module_functions import handle_sections
from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.btf.dwarf import read_local_types
from pytest_bpfmaps.cache.unchanged_files import UnchangedFiles
from pytest_bpfmaps.compiler.legacy_maps import upgraded, upgraded_maps
from pytest_bpfmaps.compiler.sources import explain_size
from pytest_bpfmaps.compiler.validate import check_object
from pytest_bpfmaps.errors import LoadError, shown
from pytest_bpfmaps.kernel.btf import keeps_raw_btf, parse_codecs, raw_btf
from pytest_bpfmaps.libbpf import capture_log, ffi, lib, opts, to_str
from pytest_bpfmaps.objects.declared_first import with_places_of_symbols
from pytest_bpfmaps.objects.diagnosis.open_errors import explain_open
from pytest_bpfmaps.objects.diagnosis.unfilled_pointers import unfilled_pointers
from pytest_bpfmaps.objects.kconfig import KconfigValue, find_kconfig
from pytest_bpfmaps.objects.struct_ops_members import without_unknown_members
from pytest_bpfmaps.paths import objects_dir
from pytest_bpfmaps.vm.kernels.vmlinux_choice import RUNNING


@dataclass(frozen=True, slots=True)
class Content:
    """What is in an object file.

    `changed` is what libbpf gets in place of the file, if that is not None. `legacy_maps` are the names of
    maps with legacy definitions, and `unknown_members` those of members of struct_ops maps that this kernel
    lacks, by map. `moved` has the (section, name) of the maps and variables of a linked object that libbpf
    would look for at another place. `unfilled_pointers` are the variables with addresses that stay 0.
    """

    changed: bytes | None
    legacy_maps: list[str]
    unknown_members: dict[str, list[str]]
    moved: list[tuple[str, str]]
    unfilled_pointers: list[str]
    has_kconfig: bool


_made_here: UnchangedFiles[Content] = UnchangedFiles()


@dataclass
class ObjectFile:
    """An object file that libbpf has open as `handle`, and the `codecs` of its types.

    libbpf got changed bytes if the file has legacy map definitions, members of struct_ops maps that this
    kernel lacks, or variables at wrong places; see `content`.
    """

    handle: Any
    codecs: Codecs | None
    content: Content

    def close(self) -> None:
        """Frees what libbpf read. Safe to call again."""
        handle, self.handle = self.handle, ffi.NULL
        if handle != ffi.NULL:
            lib.bpf_object__close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_object(
    path: Path,
    name: str,
    btf: Path | None = None,
    *,
    checked: bool = False,
    kconfig: Mapping[str, KconfigValue] | None = None,
) -> ObjectFile:
    """Opens the file at `path` with libbpf; messages call it `name`.

    `btf` is a file with the types that relocations use. `kconfig` replaces options of the kernel's
    configuration. With `checked`, the file's own types are known to be sound. Raises `LoadError` for a file
    that is not a BPF object.
    """
    if not path.is_file():
        other = "it is a folder" if path.is_dir() else "it is no file, but a device, pipe or socket"
        why = other if path.exists() else "there is no such file"
        raise LoadError("cannot open", on=shown(str(path)), why=why, errno=errno.ENOENT)
    content = _content_of(path, name, checked=checked)
    name_in_kernel = ffi.new("char[]", _object_name(path).encode())
    options, types = find_kconfig(content.has_kconfig, kconfig or {}), _find_btf(btf)
    settings = opts(
        "bpf_object_open_opts", object_name=name_in_kernel, kconfig=options, btf_custom_path=types
    )
    handle = _open(path, content.changed, settings)
    try:
        codecs = _codecs_of(handle, path)
    except BaseException:
        lib.bpf_object__close(handle)
        raise
    if keeps_raw_btf(lib.bpf_object__btf(handle)):
        lib.bpf_object__close(handle)
        handle = _open(path, content.changed, settings)
    return ObjectFile(handle, codecs, content)


def _content_of(path: Path, name: str, *, checked: bool) -> Content:
    """Returns what is in the file at `path`. Raises `LoadError`, as `open_object` does."""
    if path.is_relative_to(objects_dir()):  # clang made it
        return _made_here.get(str(path), lambda: _read_content(_bytes_of(path), name))
    data = _bytes_of(path)
    if not checked:
        check_object(data, str(path))
    return _read_content(data, name)


def _read_content(data: bytes, name: str) -> Content:
    handle_sections(data)
    upgrade = upgraded(data, name)
    trimmed = without_unknown_members(data if upgrade is None else upgrade)
    upgrade = trimmed.data if trimmed.members else upgrade
    placed = with_places_of_symbols(data if upgrade is None else upgrade)
    upgrade = placed.data if placed.moved else upgrade
    return Content(
        upgrade,
        upgraded_maps(data if upgrade is None else upgrade),
        trimmed.members,
        placed.moved,
        unfilled_pointers(data),
        b".kconfig" in data,
    )


def _bytes_of(path: Path) -> bytes:
    if too_large := explain_size(path):
        raise LoadError("cannot open", on=shown(str(path)), why=too_large, errno=errno.EFBIG)
    try:
        return path.read_bytes()
    except OSError as e:
        why = f"it can't be read: {e.strerror}"
        raise LoadError("cannot open", on=shown(str(path)), why=why, errno=e.errno) from e


@contextmanager
def open_again(path: Path, name: str, btf: Path | None, kconfig: Mapping[str, KconfigValue]) -> Iterator[Any]:
    """Opens the same file once more, and gives libbpf's handle of it until the ``with`` block ends."""
    with open_object(path, name, btf, checked=True, kconfig=kconfig) as file:
        yield file.handle


def _no_types(path: Path) -> str | None:
    """Returns why the file can have no types; None where it may."""
    if not path.is_file():
        return "it is no file" if os.path.lexists(path) else "there is no such file"
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        return f"it can't be read: {error.strerror}"
    known = start == b"\x7fELF" or start[:2] in (b"\x9f\xeb", b"\xeb\x9f")  # one for each byte order
    return None if known else "it is neither BTF nor an ELF file"


def _find_btf(given: Path | None) -> Any:
    """Returns the file that libbpf reads the kernel's types from; NULL for the running kernel's own.

    That is `given`. If it is None, and the kernel shows no types itself, it is the BTF that the catalogue has
    for this release. Raises `LoadError` if `given` does not exist, or is another kind of file: libbpf
    looks into it for objects with relocations only.
    """
    if given is not None and (why := _no_types(given)):
        raise LoadError(
            "cannot read the kernel's types",
            on=f"from {given}",
            why=why,
            fix="name a file with raw BTF, or an ELF file with a section .BTF: bpf.load(…, btf=PATH)",
            errno=errno.ENOENT,
        )
    found = given or (None if os.path.exists(RUNNING) else _btf_of_the_catalogue())
    return ffi.NULL if found is None else ffi.new("char[]", os.fsencode(found))


def _btf_of_the_catalogue() -> Path | None:
    path = os.environ.get("BPFMAPS_KERNEL_BTF")  # in a guest, where the catalogue is the host's
    if path is not None:
        return Path(path) if path else None
    from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

    mine = os.uname().release
    return next((kernel.btf for kernel in Catalogue() if kernel.release == mine), None)


def _object_name(path: Path) -> str:
    """Returns what the kernel shows before a data section's name: the file's name up to the first dot."""
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in path.name.split(".")[0])[:15]


def _open(path: Path, data: bytes | None, settings: Any) -> Any:
    """Returns libbpf's handle for the file, or for `data` in its place. Raises `LoadError`."""
    with capture_log() as log:
        if data is None:
            handle = lib.bpf_object__open_file(os.fsencode(path), settings)
        else:
            handle = lib.bpf_object__open_mem(ffi.from_buffer(data), len(data), settings)
        number = ffi.errno
    if handle == ffi.NULL:
        raise explain_open(path, number, log.text)
    return handle


def _codecs_of(handle: Any, path: Path) -> Codecs | None:
    def local() -> Codecs | None:
        raw = read_local_types(path)
        return parse_codecs(raw) if raw else None

    btf = lib.bpf_object__btf(handle)
    return None if btf == ffi.NULL else parse_codecs(raw_btf(btf)).with_more(local)


def split_maps(handles: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the program's own maps, and the maps that libbpf made of data sections, each by name.

    A data section has the section's name, such as ``.bss``.
    """
    user, internal = {}, {}
    for handle in handles:
        name = to_str(lib.bpf_map__name(handle))
        if lib.bpf_map__is_internal(handle):
            internal["." + name.partition(".")[2]] = handle
        else:
            user[name] = handle
    return user, internal


def created_map(handle: Any) -> int:
    """Returns the descriptor of a map of a loaded object, or -1 when it was not created.

    From libbpf 1.4 on, a map that was not created has a descriptor, too, which only reserves the number.
    """
    fd = int(lib.bpf_map__fd(handle))
    if fd < 0 or lib.bpf_map__autocreate(handle):
        return fd
    return fd if os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:bpf-map" else -1
