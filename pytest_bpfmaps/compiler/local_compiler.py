"""Compiles on this machine: takes an object from the cache, or runs clang."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from time import time_ns

from pytest_bpfmaps.cache.stored_files import digest, own, scratch_folder, write
from pytest_bpfmaps.compiler.build import Builder, Built
from pytest_bpfmaps.compiler.cache import CacheEntry, ObjectCache, code_of_makers
from pytest_bpfmaps.compiler.cache_eviction import collect_sometimes
from pytest_bpfmaps.compiler.clang import Clang, find_clang
from pytest_bpfmaps.compiler.command_line import flags_for, surroundings
from pytest_bpfmaps.compiler.dependencies import Inputs, record
from pytest_bpfmaps.compiler.implicit_headers import show_warnings
from pytest_bpfmaps.compiler.linker import link
from pytest_bpfmaps.compiler.request import CompileRequest
from pytest_bpfmaps.compiler.sources import read_source
from pytest_bpfmaps.compiler.vmlinux_header import VmlinuxFile
from pytest_bpfmaps.errors import CompileError, remedy_in_cache, shown, strerror
from pytest_bpfmaps.paths import objects_dir

_ATTEMPTS = 3


class LocalCompiler:
    """Compiles with clang on this machine and keeps the objects in `paths.objects_dir()`.

    `clang` is a name or path; without it ``$CLANG``, then the newest ``clang-N`` or ``clang`` in ``$PATH``.
    `timeout` limits one run of clang, in seconds. `warn` gets clang's warnings, cached or not.
    `vmlinux` returns the file, BTF or a header, from which ``vmlinux.h`` is made for requests that name none;
    None means the running kernel's BTF. It is called only for a source that needs the header.
    Many processes may share the cache; one of them compiles an object.
    """

    def __init__(
        self,
        clang: str | None = None,
        *,
        timeout: float = 120,
        warn: Callable[[str], None] = show_warnings,
        vmlinux: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._explicit = clang
        self._timeout = timeout
        self._warn = warn
        self._vmlinux = vmlinux
        self._cache = ObjectCache(objects_dir())

    @cached_property
    def clang(self) -> Clang:
        """The clang in use. Raises `CompileError` when there is none."""
        return find_clang(self._explicit, self._cache.root / "clang")

    def compile(self, request: CompileRequest) -> Path:
        """Returns the path of the object for `request`, from the cache if none of its inputs has changed.

        Raises `CompileError`, whose `details` are clang's diagnostics, and `CacheError` if other users may
        write to the cache.
        """
        own(self._cache.root)
        text = read_source(request)
        btf = VmlinuxFile(lambda: request.btf or self._vmlinux(), self._cache.root)
        key = self._key(request, text)
        entry = self._cache.find(key, btf.digest)
        if entry is None:
            try:
                with self._cache.lock(key):
                    entry = self._cache.find(key, btf.digest) or self._build(key, request, text, btf)
                collect_sometimes(self._cache.root)
            except OSError as e:
                raise _unusable(self._cache.root, e) from e
        if entry.warnings and not request.counting:  # the plain object of this source has shown the same
            self._warn(entry.warnings)
        return self._cache.path(entry)

    def link(self, objects: Sequence[Path]) -> Path:
        """Returns the path of one object that is linked of several; see `linker.link`."""
        return link(objects)

    def _key(self, request: CompileRequest, text: bytes) -> str:
        around = surroundings(request)
        origin = request.source or f"code:{request.file_name}"
        parts = [code_of_makers(), self.clang.identity, origin]
        parts += [repr(flags_for(request)), repr(sorted(around.items()))]
        if request.counting:
            parts.append("counting with conditions" if request.mcdc else "counting")
        return digest(*parts, text)

    def _build(self, key: str, request: CompileRequest, text: bytes, btf: VmlinuxFile) -> CacheEntry:
        source = Path(request.source) if request.source else self._keep_code(request, text)
        builder = Builder(self.clang, request, source, self._timeout, btf.header_folder)
        with scratch_folder(self._cache.root) as folder:
            built, inputs = _settled(builder, folder)
            digest_used = btf.digest() if built.vmlinux else None
            return self._cache.add(key, request.stem, built, digest_used, inputs)

    def _keep_code(self, request: CompileRequest, text: bytes) -> Path:
        """Writes the request's code into a file of the cache, which clang reads. Returns its path."""
        path = self._cache.root / "code" / digest(text)[:12] / request.file_name
        write(path, text)
        return path


def _settled(builder: Builder, folder: Path) -> tuple[Built, Inputs]:
    """Returns the object, and its inputs, which did not change while clang read them."""
    before, gone = None, ""
    for _ in range(_ATTEMPTS):
        started = time_ns()
        built = builder.build(folder)
        try:
            inputs = record(built.dependencies, built.search)
        except FileNotFoundError as e:  # a header that no longer exists has changed, too
            gone = f" ({shown(e.filename)} is gone)"
            continue
        # If the clock of a file server is ahead, a file seems to have changed; then equal contents decide.
        changed = inputs.changed_since(started, ours=built.vmlinux)
        if not changed or (before is not None and before.same_content(inputs)):
            return built, inputs
        before = inputs
    raise CompileError(
        "cannot compile",
        on=shown(str(builder.source)),
        why=f"the source or a header changed during each of {_ATTEMPTS} runs of clang{gone}",
        fix="compile when the program that writes these files has ended; no folder may have a newline or a "
        "backslash in its name",
    )


def _unusable(root: Path, error: OSError) -> CompileError:
    of_process = error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return CompileError(
        "cannot compile with the cache" if of_process else "cannot write to the object cache",
        on=str(root),
        why=strerror(error.errno or 0),
        fix=remedy_in_cache(error.errno, "make it writable, or set BPFMAPS_CACHE to a folder that is"),
        errno=error.errno,
    )
