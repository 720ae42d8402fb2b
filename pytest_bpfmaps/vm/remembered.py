"""What a worker looks up and compiles at each start, remembered in the process whose state is saved.

The files that the answers come from are in the state's manifest: where one changes, the state is made again.
"""

from __future__ import annotations

import builtins
import importlib.metadata
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from importlib.metadata import Distribution, EntryPoints, PackagePath, PathDistribution
from types import CodeType, ModuleType
from typing import Any

_brief: list[ModuleType] = []


class Installed(PathDistribution):
    """A package whose metadata is read once."""

    def __init__(self, path: Any) -> None:
        super().__init__(path)
        self._texts: dict[str, str | None] = {}

    def read_text(self, filename: Any) -> str | None:
        """The text of one of its metadata files; None where it has none."""
        if filename not in self._texts:
            self._texts[filename] = super().read_text(filename)
        return self._texts[filename]

    @cached_property
    def metadata(self) -> Any:
        """Its name, version and so on."""
        return super().metadata

    @cached_property
    def entry_points(self) -> EntryPoints:
        """Its entry points."""
        return super().entry_points

    @cached_property
    def files(self) -> list[PackagePath] | None:
        """Its files, as it was installed."""
        return super().files


def remember_packages() -> None:
    """Has `importlib.metadata` know what is in the folders of `sys.path`: pytest looks there often."""
    look_up, look_up_one = importlib.metadata.distributions, Distribution.from_name
    known = {folder: [_installed(found) for found in look_up(path=[folder])] for folder in sys.path}
    everything = [one for folder in reversed(sys.path) for one in reversed(known[folder])]
    names = {one.name.lower(): one for one in everything}  # the first of a name counts
    for found in everything:
        if any(point.group == "pytest11" for point in found.entry_points):
            found.files, found.read_text("direct_url.json")  # pytest will ask for them

    def distributions(**context: Any) -> Iterator[Distribution]:
        if context:
            yield from look_up(**context)
            return
        for folder in sys.path:
            yield from known[folder] if folder in known else look_up(path=[folder])

    def from_name(name: str) -> Distribution:
        return names.get(name.lower()) or look_up_one(name)

    importlib.metadata.distributions = distributions
    vars(importlib.metadata)["distribution"] = from_name


def _installed(found: Distribution) -> Distribution:
    return Installed(found._path) if isinstance(found, PathDistribution) else found


def remember_worker() -> None:
    """Has execnet know the bytecode of pytest-xdist's worker, whose source is sent to each."""
    import xdist.remote
    from execnet import gateway_base

    known = (inspect.getsource(xdist.remote) + "\n", inspect.getsourcefile(xdist.remote), "exec")
    code: CodeType = vars(xdist.remote)["__loader__"].get_code("xdist.remote")

    def compile_or_remember(source: Any, filename: Any, mode: str, *more: Any, **options: Any) -> CodeType:
        if (source, filename, mode) == known and not more and not options:
            return code
        made: CodeType = builtins.compile(source, filename, mode, *more, **options)
        return made

    vars(gateway_base)["compile"] = compile_or_remember  # before the builtin of that name


def remember_plugins(plugins: Iterable[object], fixture: type) -> None:
    """Has `dir` of a plugin's module name its hooks and its fixtures, objects of type `fixture`, only.

    pytest and pluggy look at each name of each plugin, most of which its module has imported. This ends with
    `forget_plugins`.
    """
    for module in plugins:
        if isinstance(module, ModuleType) and "__dir__" not in vars(module):
            fixtures = {name for name, value in vars(module).items() if type(value) is fixture}
            vars(module)["__dir__"] = partial(_hooks_and, fixtures, vars(module))
            _brief.append(module)


def _hooks_and(fixtures: set[str], names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith("pytest_") or name in fixtures]


def forget_plugins() -> None:
    """Plugins are registered: their modules are as ever."""
    while _brief:
        del vars(_brief.pop())["__dir__"]
