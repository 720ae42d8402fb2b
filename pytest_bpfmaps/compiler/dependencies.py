"""Records the files that an object was made from, and finds out whether they have changed.

An object is up to date while every file that clang read is unchanged, and no file has appeared that clang
would now read instead. Such a file is a header of the same name in a folder that is searched earlier, or a
header that ``__has_include`` asked for and did not find.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_bpfmaps.cache.stored_files import digest
from pytest_bpfmaps.cache.unchanged_files import is_settled, state_of
from pytest_bpfmaps.errors import CompileError

_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*(?:include|include_next|import|embed)[ \t]*"([^"\n]+)"', re.MULTILINE)
_HAS_INCLUDE = re.compile(rb'__has_(?:include|include_next|embed)[ \t]*\([ \t]*["<]([^">\n]+)[">]')
_LISTS = re.compile(r"search starts here:\n(.*?)^End of search list\.\n", re.DOTALL | re.MULTILINE)
_DIAGNOSTIC = re.compile(r"(?:\S+: )?(?:warning|error|note|fatal error): ")


@dataclass(frozen=True)
class SearchPath:
    """Where clang looks for headers: folders in order, including those that do not exist (yet)."""

    folders: tuple[str, ...]
    compiler: str  # the binary that does the work, when the command is a wrapper


def parse_search_path(verbose: str) -> SearchPath | None:
    """Reads what clang's option ``-v`` prints. Returns None when clang did not get so far."""
    lists = _LISTS.search(verbose)
    if lists is None:
        return None
    missing = re.findall(r'^ignoring nonexistent directory "(.*)"$', verbose, re.MULTILINE)
    compiler = re.search(r'^ "([^"]+)" -cc1 ', verbose, re.MULTILINE)
    found = [line[1:] for line in lists[1].splitlines() if line.startswith(" ")]
    return SearchPath((*missing, *found), compiler[1] if compiler else "")


def without_search_path(verbose: str) -> str:
    """Returns what clang printed, without the lines of its option ``-v``.

    These end with the search path. Only diagnostics of options may be among them.
    """
    lists = _LISTS.search(verbose)
    if lists is None:
        return verbose
    before = verbose[: lists.start()].splitlines(keepends=True)
    return "".join(filter(_DIAGNOSTIC.match, before)) + verbose[lists.end() :]


def parse_dependencies(rule: str) -> list[str]:
    """Returns the files of the make rule that ``clang -MD`` writes.

    clang does not escape a newline in a name, and turns a backslash into a slash: `check_name` refuses both.
    """
    _, _, files = rule.replace("\\\n", " ").partition(": ")
    words = re.findall(r"(?:\\[ #]|[^ \n])+", files)
    return [re.sub(r"\\([ #])", r"\1", word).replace("$$", "$") for word in words]


def check_name(path: str) -> None:
    """Raises `CompileError` for a path that clang can't write into its list of dependencies."""
    found = "newline" if "\n" in path else "backslash" if "\\" in path else ""
    if found:
        raise CompileError(
            "cannot compile with",
            on=repr(path),
            why=f"there is a {found} in the path, which a list of dependencies can't hold",
            fix="rename it",
        )


@dataclass(frozen=True)
class FileState:
    """A file's digest, and the result of `stat`, so that an unchanged file need not be read again."""

    path: str
    content: str  # digest; if it is empty, only `stat` is compared
    stat: tuple[int, ...] | None  # None if the file changed so recently that `stat` could miss a change

    def changed_since(self, when_ns: int) -> bool:
        """Returns whether the file changed after `when_ns` (nanoseconds since the epoch), or no longer
        exists.
        """
        try:
            return os.stat(self.path).st_ctime_ns > when_ns
        except OSError:
            return True

    def holds(self) -> bool:
        """Returns whether the file still has this content."""
        try:
            if self.stat is not None and state_of(self.path) == self.stat:
                return True
            return bool(self.content) and digest(Path(self.path).read_bytes()) == self.content
        except OSError:
            return False


@dataclass(frozen=True)
class Inputs:
    """Everything that an object depends on: files, and files or folders that do not exist."""

    files: tuple[FileState, ...]
    absent: tuple[str, ...]

    def hold(self) -> bool:
        """Returns whether clang would read the same files now."""
        return not any(map(os.path.exists, self.absent)) and all(file.holds() for file in self.files)

    def changed_since(self, when_ns: int, *, ours: Path | None = None) -> bool:
        """Returns whether one of the files changed after `when_ns` (nanoseconds since the epoch).

        What is in the folder `ours` was made for this object, and does not count.
        """
        files = (file for file in self.files if ours is None or Path(file.path).parent != ours)
        return any(file.changed_since(when_ns) for file in files)

    def same_content(self, other: Inputs) -> bool:
        """Returns whether both list the same files with the same contents."""
        return [(f.path, f.content) for f in self.files] == [(f.path, f.content) for f in other.files]

    def to_plain(self) -> dict[str, Any]:
        """Returns the inputs as data for JSON."""
        return {"files": [[f.path, f.content, f.stat] for f in self.files], "absent": self.absent}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Inputs:
        """Returns the inputs from data that `to_plain` made."""
        files = (FileState(p, c, tuple(s) if s is not None else None) for p, c, s in plain["files"])
        return cls(tuple(files), tuple(plain["absent"]))


def record(dependencies: Iterable[str], search: SearchPath) -> Inputs:
    """Returns the inputs of an object that clang has just made.

    Raises `OSError` if one of them no longer exists, and `CompileError` for a device or a pipe, because
    reading it may never end.
    """
    paths = sorted({os.path.abspath(path) if not os.path.isabs(path) else path for path in dependencies})
    texts = {path: _content(path) for path in paths}
    files = [_record_file(path, text) for path, text in texts.items()]
    if search.compiler:
        files.append(FileState(search.compiler, "", state_of(search.compiler)))
    wanted = {os.path.join(folder, name) for folder, name in _looked_up(texts, search.folders)}
    return Inputs(tuple(files), tuple(sorted({_absent(path) for path in wanted if not os.path.exists(path)})))


def _absent(path: str) -> str:
    """Returns the first part of a path that does not exist. Many headers may be missing in one folder."""
    while not os.path.exists(folder := os.path.dirname(path)) and folder != path:
        path = folder
    return path


def _content(path: str) -> bytes:
    if not os.path.isfile(path) and os.path.exists(path):
        fix = "include a file: write the output of the other program to a file first"
        raise CompileError("cannot compile with", on=path, why="it is a device or a pipe", fix=fix)
    return Path(path).read_bytes()


def _record_file(path: str, text: bytes) -> FileState:
    stat = state_of(path)
    return FileState(path, digest(text), stat if is_settled(stat) else None)


def _looked_up(texts: dict[str, bytes], folders: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yields (folder, name) of every place where clang looked, or may have looked, for a header."""
    for path, text in texts.items():
        for position, folder in enumerate(folders):
            if path.startswith(folder.rstrip("/") + "/"):
                name = path[len(folder.rstrip("/")) + 1 :]
                yield from ((earlier, name) for earlier in folders[:position])
        own = os.path.dirname(path)
        yield from ((own, os.fsdecode(name)) for name in _INCLUDE.findall(text))
        for name in _HAS_INCLUDE.findall(text):
            yield from ((folder, os.fsdecode(name)) for folder in (own, *folders))
