"""Finds features that a kernel of the catalogue certainly lacks, by its recorded BTF and configuration.

It can't find features that a kernel certainly has: a kernel may list a feature and still refuse it. Only a
probe finds these.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import MapType, ProgramType
from pytest_bpfmaps.kernel.features import (
    REFUSED,
    Feature,
    command_in,
    config_in,
    function_in,
    helper_in,
    kfunc_in,
    read_config,
)
from pytest_bpfmaps.kernel.known_names import module_of
from pytest_bpfmaps.kernel.running_kernel import asked, lacks
from pytest_bpfmaps.kernel.unknown_names import refuse_unknown
from pytest_bpfmaps.kernel.vmlinux_btf import enumerators, program_types
from pytest_bpfmaps.libbpf import check_pointer, lib


class RecordedKernel:
    """A kernel of the catalogue: `release`, and files with its raw BTF and its configuration, or None."""

    def __init__(self, release: str, btf: Path | None, config: Path | None) -> None:
        self.release = release
        self._btf_file = btf
        self._config_file = config

    def missing_features(
        self, names: Iterable[str], features: Mapping[str, Any]
    ) -> Iterator[tuple[str, str]]:
        """Yields the name of each feature that it certainly lacks, and the sentence that a probe would give.

        `names` and `features` are the arguments of the marker `bpf_requires`. A name that no kernel has is
        ignored here, because the test itself fails for it.
        """
        try:
            wanted = list(asked(names, features))
        except UnsupportedError:
            return
        for kind, name in wanted:
            feature = self._feature(kind, name)
            if feature is not None and not feature:
                try:
                    refuse_unknown(kind, name)
                except UnsupportedError:
                    return
                yield feature.name, lacks(self.release, feature)

    def _feature(self, kind: str, name: str) -> Feature | None:
        """Returns the feature as its files show it; None if they do not show it."""
        if kind == "config":
            return config_in(self._config, name) if self._config is not None else None
        if self._btf is None:
            return None
        match kind:
            case "helper":
                return helper_in(self._btf, name)
            case "kfunc":
                return unless_in_module(name, kfunc_in(self._btf, name))
            case "command":
                return command_in(self._btf, name)
            case "function":
                return unless_in_module(name, function_in(self._btf, name))
            case "map_type":
                return self._type("map", MapType.from_name(name), enumerators(self._btf, "bpf_map_type"))
            case "program_type":
                return self._type("program", ProgramType.from_name(name), program_types(self._btf))
        return None

    @staticmethod
    def _type(what: str, wanted: MapType | ProgramType | None, there: Container[str]) -> Feature | None:
        if wanted is None or not there:
            return None
        prefix = "BPF_MAP_TYPE_" if isinstance(wanted, MapType) else "BPF_PROG_TYPE_"
        present = f"{prefix}{wanted.name}" in there
        return Feature(f"{what} type {wanted}", present, "" if present else REFUSED)

    @cached_property
    def _config(self) -> dict[str, str] | None:
        return read_config(self._config_file) if self._config_file is not None else None

    @cached_property
    def _btf(self) -> object | None:
        """The kernel's BTF; `enumerators` requires that it is kept until the process ends."""
        if self._btf_file is None:
            return None
        found: object = check_pointer(
            lib.btf__parse_raw(os.fsencode(self._btf_file)),
            UnsupportedError,
            "cannot read the types of kernel",
            on=str(self._btf_file),
            fix="fetch or add the kernel again",
        )
        return found


def unless_in_module(function: str, feature: Feature) -> Feature | None:
    """Returns None in place of a missing function that a module may have: a test may load the module."""
    return None if not feature and module_of(function) else feature
