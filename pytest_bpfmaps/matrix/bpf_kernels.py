"""The marker `bpf_kernels`: which of the chosen kernels a test is for, by name, glob or range of versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import pytest

from pytest_bpfmaps.errors import closest
from pytest_bpfmaps.kernel.version_ranges import in_range, is_range
from pytest_bpfmaps.matrix import HOST

_SAID: pytest.StashKey[set[str]] = pytest.StashKey()


def wanted_kernels(node: pytest.Collector | pytest.Item, releases: Mapping[str, str]) -> list[str]:
    """Returns the names of the kernels that all markers of the test allow; `releases` has all, by name.

    Raises `pytest.Collector.CollectError` for a range that can't be read or that no version is in, and for a
    marker without names: the test would be skipped on each kernel.
    """
    left = list(releases)
    for mark in node.iter_markers("bpf_kernels"):
        _check_arguments(mark)
        try:
            left = [name for name in left if any(_fits(name, text, releases[name]) for text in mark.args)]
        except ValueError as e:
            raise pytest.Collector.CollectError(f"bpf_kernels: {e}") from None
    return left


def warn_of_unknown(config: pytest.Config, item: pytest.Item, names: Iterable[str]) -> None:
    """Warns of a glob or name that fits no kernel of the run or the catalogue, and is no version."""
    if hasattr(config, "workerinput"):
        return  # the process that started the workers warns
    said = config.stash.setdefault(_SAID, set())
    known = {HOST, *names}
    for mark in item.iter_markers("bpf_kernels"):
        for text in set(mark.args) - said:
            if is_range(text) or any(fnmatchcase(name, text) for name in known):
                continue
            known.update(_catalogue())
            if text.replace(".", "").isdecimal() or any(fnmatchcase(name, text) for name in known):
                continue
            said.add(text)
            item.warn(pytest.PytestWarning(f"bpf_kernels({text!r}) fits no kernel: {closest(text, known)}"))


def _check_arguments(mark: pytest.Mark) -> None:
    wrong = [repr(each) for each in mark.args if not isinstance(each, str)]
    wrong += [f"{name}={value!r}" for name, value in mark.kwargs.items()]
    if not wrong and mark.args:
        return
    why = f"{wrong[0]} is no name of a kernel" if wrong else "it names no kernel"
    raise pytest.Collector.CollectError(f"bpf_kernels: {why}: write '6.1', '6.*', 'host' or '>=5.15'")


def _fits(name: str, text: str, release: str) -> bool:
    return in_range(text, release) if is_range(text) else fnmatchcase(name, text)


def _catalogue() -> list[str]:
    from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

    return Catalogue().names()
