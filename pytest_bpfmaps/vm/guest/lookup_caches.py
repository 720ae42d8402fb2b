"""Remembers what a worker looks up and compiles at each start, before its state is saved.

The state's manifest names the files that the answers come from. Where one changes, the state is made again.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import os
import sys
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from importlib.metadata import Distribution, EntryPoints, PackagePath, PathDistribution
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from pytest_bpfmaps.compat.pytest_names import config_maker, set_config_maker
from pytest_bpfmaps.compat.python_names import metadata_folder
from pytest_bpfmaps.compat.xdist_names import remember_worker_code

# argparse asks for these for its help, and no worker prints help.
HELP = {"COLUMNS", "LINES", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"}

_brief: list[Any] = []


class Installed(PathDistribution):
    """A package that reads its metadata once, until `forget_texts`, and its name once for good."""

    def __init__(self, path: Any) -> None:
        super().__init__(path)
        self._texts: dict[str, str | None] = {}

    @cached_property
    def name(self) -> str:
        """The name in its metadata."""
        return super().name

    def read_text(self, filename: Any) -> str | None:
        """Returns the text of one of its metadata files; None where it has no such file."""
        if filename not in self._texts:
            self._texts[filename] = super().read_text(filename)
        return self._texts[filename]

    @cached_property
    def metadata(self) -> Any:
        """The name, version and so on."""
        return super().metadata

    @cached_property
    def entry_points(self) -> EntryPoints:
        """The package's entry points."""
        return super().entry_points

    @cached_property
    def files(self) -> list[PackagePath] | None:
        """The files that were installed."""
        return super().files

    def forget_texts(self) -> None:
        """Has its texts read again when somebody asks. With the description, they are long."""
        self._texts.clear()
        vars(self).pop("metadata", None)


def remember_packages() -> None:
    """Has `importlib.metadata` remember the packages in the folders of `sys.path`. pytest asks often."""
    look_up, look_up_one = importlib.metadata.distributions, Distribution.from_name
    known = {folder: [_installed(found) for found in look_up(path=[folder])] for folder in sys.path}
    everything = [one for folder in reversed(sys.path) for one in reversed(known[folder])]
    names = {one.name.lower(): one for one in everything}  # the first package of a name counts
    for found in everything:
        is_plugin = any(point.group == "pytest11" for point in found.entry_points)
        if isinstance(found, Installed) and not is_plugin:
            found.forget_texts()
        elif is_plugin:
            found.files, found.read_text("direct_url.json")  # reads what pytest will ask for

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
    return Installed(metadata_folder(found)) if isinstance(found, PathDistribution) else found


def remember_worker() -> None:
    """Has execnet remember the bytecode of pytest-xdist's worker. Its source is sent to each worker."""
    remember_worker_code()
    # The worker would look in all folders for a package that is not installed. `forget_plugins` ends this.
    sys.modules.setdefault("setproctitle", None)  # type: ignore[arg-type]


def remember_plugins(plugins: Iterable[object], fixture: type) -> None:
    """Has `dir` of a plugin (a module or an object) name only hooks and fixtures (objects of type `fixture`).

    pytest and pluggy look at each name of each plugin, and most names are imported or inherited.
    `forget_plugins` ends this.
    """
    for plugin in plugins:
        owner: Any = plugin if isinstance(plugin, ModuleType) else type(plugin)
        if "__dir__" in vars(owner):
            continue
        fixtures = {name for name in dir(owner) if type(inspect.getattr_static(owner, name)) is fixture}
        with contextlib.suppress(TypeError):  # a class that is not written in Python
            owner.__dir__ = _brief_dir(fixtures, vars(owner) if owner is plugin else None)
            _brief.append(owner)


def _brief_dir(fixtures: set[str], module: Iterable[str] | None) -> Callable[..., list[str]]:
    """Returns a `__dir__` with those names, for a module or for a class."""

    def names(*plugin: object) -> list[str]:
        everything = object.__dir__(*plugin) if module is None else module
        return [name for name in everything if name.startswith("pytest_") or name in fixtures]

    return names


def forget_plugins() -> None:
    """Undoes `remember_plugins`, and forgets `setproctitle`, when the worker and its plugins have begun."""
    while _brief:
        del _brief.pop().__dir__
    if sys.modules.get("setproctitle", _brief) is None:
        del sys.modules["setproctitle"]


class _Environment(UserDict[str, str]):
    """Environment variables that note which of them were asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        super().__init__(os.environ)

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return super().__contains__(name)


def remember_config() -> None:
    """Makes the next configuration of pytest now, with pytest's own plugins registered.

    The worker does not use it where pytest would make another one: an argument excludes a plugin, or an
    environment variable that pytest has read has another value.
    """
    make = config_maker()
    if make is None:
        return
    environment = _Environment()
    with mock.patch.object(os, "environ", environment):
        ready = [make()]
    known = {name: environment.get(name) for name in environment.asked - HELP}

    def get_config(args: Iterable[str] | None = None, plugins: Any = None, **more: Any) -> Any:
        args = tuple(args or ())
        others = any(value is not None for value in more.values())
        differs = any(os.environ.get(name) != value for name, value in known.items())
        if not ready or others or differs or any("no:" in arg for arg in args):  # -p no:NAME, -pno:NAME
            return make(args, plugins, **more)
        config = ready.pop()
        config.invocation_params = config.InvocationParams(args=args, plugins=plugins, dir=Path.cwd())
        return config

    set_config_maker(get_config)
