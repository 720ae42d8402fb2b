"""What an explanation needs to know about a load that was refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.objects.collection import Named
from pytest_bpfmaps.objects.map_spec import MapSpec
from pytest_bpfmaps.programs.program_spec import ProgramSpec


@dataclass(frozen=True)
class Attempt:
    """An object that could not be loaded: its file, its name in messages, its parts as they were configured.

    `handle` is libbpf's handle of the opened object. `open_again` opens the same file once more, and gives
    libbpf's handle of it until its ``with`` block ends.
    """

    path: Path
    name: str
    handle: Any
    maps: Named[MapSpec]
    programs: Named[ProgramSpec]
    codecs: Codecs | None
    open_again: Callable[[], AbstractContextManager[Any]]
