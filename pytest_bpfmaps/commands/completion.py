"""Completes the command line of `bpfmaps` in bash, zsh and fish, by argcomplete (PyPI)."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterable


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers a shell that asks what may come next, and then ends the process.

    It does nothing if no shell asks, or if argcomplete is not installed.
    """
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(parser)


def offer(argument: argparse.Action, names: Callable[[], Iterable[str]]) -> None:
    """Makes the shell offer `names` for an argument. `names` is called only when a shell asks."""
    argument.completer = lambda **_: list(names())  # type: ignore[attr-defined] # argcomplete's name


def kernels() -> list[str]:
    """Returns the names of the stored kernels."""
    from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

    return Catalogue().names()
