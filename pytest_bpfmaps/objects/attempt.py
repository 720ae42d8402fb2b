"""A load that was refused, as far as the explanation needs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.named import Named
from pytest_bpfmaps.objects.map_spec import MapSpec
from pytest_bpfmaps.programs import ProgramSpec


@dataclass(frozen=True)
class Attempt:
    """An object that could not be loaded: its file, its name in messages, its parts as they were configured.

    `handle` is libbpf's, of the opened object. `btf` is the file that relocations were made for, or None.
    """

    path: Path
    name: str
    btf: Path | None
    handle: Any
    maps: Named[MapSpec]
    programs: Named[ProgramSpec]
    codecs: Codecs | None
