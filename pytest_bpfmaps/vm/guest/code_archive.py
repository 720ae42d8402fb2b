"""Keeps Python's modules for a guest as one file of code.

To find a module takes a dozen calls into the file system. In an emulated guest that takes more time than to
run the module. So the host imports what guests need, and writes down the code of each module (`Recorder`). A
guest imports it from there (`Finder`), under the host's names and paths. The file has the length of an index,
the index, and the code.
"""

from __future__ import annotations

import marshal
import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, FunctionType, ModuleType
from typing import Any, BinaryIO

_LENGTH = 8
# The source ("" for a package without one), the folders of a package's modules, and begin and end of the
# code.
Entry = tuple[str, list[str] | None, int, int]
_get_code = SourceFileLoader.get_code
_exec_module = SourceFileLoader.exec_module
_PACKAGE = __name__.partition(".")[0]


class Recorder:
    """Notes the code of the modules that are imported from sources, from now on until this process ends.

    `reads` has the other files that are opened to be read, for example a plugin's data or its source.
    """

    def __init__(self) -> None:
        self._codes: dict[str, tuple[str, CodeType]] = {}
        self.reads: set[str] = set()
        importing = False

        def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
            nonlocal importing
            before, importing = importing, True
            try:
                code = _get_code(loader, fullname)
            finally:
                importing = before
            if code is not None:
                self._codes[fullname] = (str(loader.path), code)
            return code

        def note(event: str, arguments: tuple[Any, ...]) -> None:
            if event != "open" or importing:
                return
            path, _, flags = arguments
            if isinstance(path, str) and not flags & os.O_ACCMODE:
                self.reads.add(path)

        SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]
        sys.addaudithook(note)

    def finish(self) -> list[str]:
        """Adds what was imported before, and returns the sources of all."""
        for name, module in list(sys.modules.items()):
            loader = getattr(module, "__loader__", None)
            if name not in self._codes and isinstance(loader, SourceFileLoader) and loader.name == name:
                loader.get_code(name)
        return [path for path, _ in self._codes.values()]

    def write(self, out: BinaryIO) -> None:
        """Writes the file. Raises OSError."""
        index: dict[str, Entry] = {}
        for name, module in sys.modules.items():
            if getattr(module, "__file__", None) is None and (places := _places(module)):
                index[name] = ("", places, 0, 0)
        parts, end = [], 0
        for name, (path, code) in self._codes.items():
            parts.append(marshal.dumps(code))
            start, end = end, end + len(parts[-1])
            index[name] = (path, _places(sys.modules.get(name)), start, end)
        head = marshal.dumps(index)
        out.writelines([len(head).to_bytes(_LENGTH, "little"), head, *parts])


def _places(module: ModuleType | None) -> list[str] | None:
    places = getattr(getattr(module, "__spec__", None), "submodule_search_locations", None)
    return None if places is None else list(places)


class Finder:
    """Has Python find modules in such a file, until `close`."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._start = _LENGTH + int.from_bytes(self._map[:_LENGTH], "little")
        self._index: dict[str, Entry] = marshal.loads(self._map[_LENGTH : self._start])

        def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
            path, _, start, end = self._index.get(fullname, ("", None, 0, 0))
            if path != loader.path:
                return _get_code(loader, fullname)
            with memoryview(self._map) as view, view[self._start + start : self._start + end] as part:
                code: CodeType = marshal.loads(part)
            return code

        SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]
        SourceFileLoader.exec_module = _run_module  # type: ignore[method-assign, assignment]
        finders: list[Any] = sys.meta_path
        finders.insert(finders.index(PathFinder), self)

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Finds a module; see `importlib.abc.MetaPathFinder`."""
        if name not in self._index:
            return None
        path, places, *_ = self._index[name]
        if path:
            loader = SourceFileLoader(name, path)
            return spec_from_file_location(name, path, loader=loader, submodule_search_locations=places)
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = places
        return spec

    def close(self) -> None:
        """Has Python find modules as usual again.

        Modules that are imported look as if it had always done so.
        """
        finders: list[Any] = sys.meta_path
        finders.remove(self)
        SourceFileLoader.get_code = _get_code  # type: ignore[method-assign]
        SourceFileLoader.exec_module = _exec_module  # type: ignore[method-assign]
        self._map.close()


def _run_module(loader: SourceFileLoader, module: ModuleType) -> None:
    _exec_module(loader, module)
    if module.__name__.partition(".")[0] == _PACKAGE:
        forget_annotations(module)


def forget_annotations(module: ModuleType) -> None:
    """Deletes the annotations of the functions of one of this package's modules.

    Nothing reads them in a guest, and each state of a guest would have two megabytes of them.
    """
    for function in _functions(module, module.__name__):
        del function.__annotations__


def _functions(owner: ModuleType | type, name: str) -> Iterator[FunctionType]:
    """Yields the functions that the module `name` defines, in itself or in its classes."""
    found: list[object]
    for value in vars(owner).values():
        match value:
            case staticmethod() | classmethod():
                found = [value.__func__]
            case property():
                found = [value.fget, value.fset]
            case cached_property():
                found = [value.func]
            case type() if value.__module__ == name and value is not owner:
                yield from _functions(value, name)
                continue
            case _:
                found = [value]
        for each in found:
            if isinstance(each, FunctionType) and each.__module__ == name:
                yield each
                if isinstance(wrapped := each.__dict__.get("__wrapped__"), FunctionType):
                    yield wrapped
