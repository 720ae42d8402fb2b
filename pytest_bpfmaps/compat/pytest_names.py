"""The private names of pytest that are used."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

import pytest


def redirect_terminal(config: pytest.Config, file: TextIO) -> None:
    """Has pytest's terminal writer write to `file` from now on."""
    config.get_terminal_writer()._file = file


def temporary_folder(config: pytest.Config) -> Path:
    """Returns the folder of the run's temporary files. pytest-xdist gives each worker a folder below it."""
    factory: Any = config._tmp_path_factory  # type: ignore[attr-defined]
    return Path(factory.getbasetemp())


def config_maker() -> Callable[..., Any] | None:
    """Returns the function that makes the configuration of a run; None where a release has no such name."""
    import _pytest.config

    return getattr(_pytest.config, "get_config", None)


def set_config_maker(make: Callable[..., Any]) -> None:
    """Has pytest make its configuration by `make`."""
    import _pytest.config

    _pytest.config.get_config = make


def without_rewriting_plugins() -> AbstractContextManager[Any]:
    """Keeps pytest from looking for plugins to rewrite in the metadata of all packages: it takes seconds."""
    from _pytest.assertion.rewrite import AssertionRewritingHook

    return mock.patch.object(AssertionRewritingHook, "mark_rewrite")
