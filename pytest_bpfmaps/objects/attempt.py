"""A load that was refused: what the explanation needs to know of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.objects.collection import Named
from pytest_bpfmaps.objects.map_spec import MapSpec
from pytest_bpfmaps.programs.program import ProgramSpec


@dataclass(frozen=True)
class Attempt:
    """An object that could not be loaded: its file, its name in messages, its parts as they were configured.

    `handle` is libbpf's, of the opened object. `open_again` gives one of the same file, for a while.
    """

    path: Path
    name: str
    handle: Any
    maps: Named[MapSpec]
    programs: Named[ProgramSpec]
    codecs: Codecs | None
    open_again: Callable[[], AbstractContextManager[Any]]
