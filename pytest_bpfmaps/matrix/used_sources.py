"""Records which sources a test, a file or the whole run has compiled, for ``--bpf-watch``.

A test's reports carry what has been compiled since the report before. So it comes from guests, too.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.compiler.request import Compiler, CompileRequest
from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.items import KERNEL, kernel_of, without_kernel

FIELD = "bpfmaps_used_sources"
"""The attribute of a report: a list of (user, source, object), see `UsedSources`."""

ORDER = "bpfmaps_watch"
"""The key of what pytest-xdist's workers are told: the tests and files to run, or None for all."""

_USES: pytest.StashKey[UsedSources] = pytest.StashKey()


def test_name(item: pytest.Item) -> str:
    """Returns the test's node id without its kernel."""
    return without_kernel(item.nodeid, kernel_of(item))


def keep_wanted(
    config: pytest.Config, items: list[pytest.Item], wanted: Sequence[Sequence[str]] | None
) -> None:
    """Deselects all but `wanted`: tests, by their `test_name`, and files. With None, it deselects nothing."""
    if wanted is None:
        return
    tests, files = map(set, wanted)
    kept = [item for item in items if str(item.path) in files or test_name(item) in tests]
    if len(kept) < len(items):
        rest = set(items).difference(kept)
        config.hook.pytest_deselected(items=[item for item in items if item in rest])
        items[:] = kept


class UsedSources:
    """A plugin that adds what was compiled to the reports of tests and files.

    The user of a source is the node id, without a kernel, of what the fixture lives for: a test, a file, or
    an empty text for the run. An object that could not be made is an empty text.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._kernel = config.stash.get(KERNEL, HOST)
        self._new: list[tuple[str, str, str]] = []
        config.stash[_USES] = self

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keeps, in a worker, the tests that are to run."""
        keep_wanted(config, items, getattr(config, "workerinput", {}).get(ORDER))

    def note(self, user: str, source: Path, made: Path | None) -> None:
        """Notes that `user` needs a source, and the object that it became."""
        name = without_kernel(user, self._kernel)
        self._new.append((name, str(source), "" if made is None else str(made)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        """Adds what the test has compiled."""
        return self._add(report) if (report := (yield)) is not None else report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, Any, Any]:
        """Adds what the collection of a file has compiled."""
        return self._add(report) if (report := (yield)) is not None else report

    def _add(self, report: Any) -> Any:
        if self._new:
            setattr(report, FIELD, self._new)
            self._new = []
        return report


def recording(compiler: Compiler, node: Any) -> Compiler:
    """Returns a compiler that notes its sources for `node`, where the run is watched; else `compiler`."""
    uses = node.config.stash.get(_USES, None)
    return compiler if uses is None else _Recording(compiler, uses, node.nodeid)


class _Recording:
    def __init__(self, compiler: Compiler, uses: UsedSources, user: str) -> None:
        self._compiler, self._uses, self._user = compiler, uses, user

    def compile(self, request: CompileRequest) -> Path:
        source = Path(request.source or request.file_name)
        try:
            made = self._compiler.compile(request)
        except Exception:
            self._uses.note(self._user, source, None)
            raise
        self._uses.note(self._user, source, made)
        return made

    def link(self, objects: Sequence[Path]) -> Path:
        return self._compiler.link(objects)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiler, name)
