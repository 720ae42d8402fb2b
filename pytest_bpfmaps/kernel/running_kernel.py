"""The object behind the fixture `bpf_kernel`, and the features that `bpf_requires` asks for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pytest_bpfmaps.kernel import release as running_release
from pytest_bpfmaps.kernel.features import KINDS, NO_KFUNC, Feature, asked_for, probe
from pytest_bpfmaps.kernel.lacking_attach_points import named_target
from pytest_bpfmaps.kernel.other_kernels import advise_other_kernel
from pytest_bpfmaps.kernel.privileges import has_capability
from pytest_bpfmaps.kernel.unknown_names import refuse_unknown
from pytest_bpfmaps.kernel.unloaded_modules import module_to_load


class RunningKernel:
    """The kernel that this process runs on."""

    @property
    def release(self) -> str:
        """The release as ``uname -r`` prints it."""
        return running_release.release()

    @property
    def version(self) -> tuple[int, int, int]:
        """The numbers at the start of the release."""
        return running_release.version()

    @property
    def id(self) -> str:
        """The major and minor number, as the catalogue names kernels: ``6.1``."""
        return "{}.{}".format(*self.version)

    @property
    def emulated(self) -> bool:
        """Whether the CPU is emulated in software, so that everything is much slower."""
        return running_release.is_emulated()

    def has(self, *names: str, **features: str | Iterable[str]) -> bool:
        """Returns whether it has all the features; they are written as in the marker `bpf_requires`."""
        return all(probe_all(names, features))

    def __repr__(self) -> str:
        return f"<kernel {self.release}>"


def probe_all(names: Iterable[str], features: Mapping[str, Any]) -> Iterator[Feature]:
    """Yields the answer for each feature in the arguments of the marker `bpf_requires`."""
    for kind, name in asked(names, features):
        yield probe(kind, name)


def asked(names: Iterable[str], features: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the kind and the name of each feature in the arguments of a marker.

    Raises `UnsupportedError` for a name that has no kind, and for what is no name.
    """
    yield from map(asked_for, names)
    for kind, wanted in features.items():
        singular = kind if kind in KINDS else kind.removesuffix("s")
        for name in wanted if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [wanted]:
            yield singular, name if isinstance(name, str) else asked_for(name)[1]


def missing_features(names: Iterable[str], features: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the name of each missing feature, and a sentence for the reason of a skip.

    Raises `UnsupportedError` for a feature that no kernel has.
    """
    for kind, name in asked(names, features):
        feature = probe(kind, name)
        if not feature:
            refuse_unknown(kind, name)
            yield feature.name, sentence_on(kind, name, feature)


def sentence_on(kind: str, name: str, feature: Feature) -> str:
    """Returns a sentence about a feature that this kernel lacks, for the reason of a skip."""
    may = "EPERM" not in feature.why or has_capability("CAP_BPF") or has_capability("CAP_SYS_ADMIN")
    user = "" if may else f" (uid {os.geteuid()} has no CAP_BPF)"
    return lacks(running_release.release(), feature) + user + _advice(kind, name, feature)


def _advice(kind: str, name: str, feature: Feature) -> str:
    if NO_KFUNC in feature.why:  # it may be none elsewhere, and BTF does not tell
        return ""
    function = {"attach": named_target(name), "kfunc": name, "function": name}.get(kind, "")
    if module := module_to_load(function):
        return f"; the module {module} has it: modprobe {module} before the test is set up"
    return advise_other_kernel(kind, name, feature.name)


def lacks(release: str, feature: Feature) -> str:
    """Returns a sentence about a feature that a kernel of that release lacks."""
    return f"{release} lacks {feature.name}" + (f": {feature.why}" if feature.why else "")
