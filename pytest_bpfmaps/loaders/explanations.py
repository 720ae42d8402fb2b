"""Explains what an agent wrote before it ended. The most certain explanation comes first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.features import probe
from pytest_bpfmaps.kernel.privileges import ALL_CAPABILITIES
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.loaders.attach_refusals import explain_attach
from pytest_bpfmaps.loaders.endings import explain_output, explain_refusal, explain_user
from pytest_bpfmaps.loaders.needed_capabilities import needed_capabilities
from pytest_bpfmaps.loaders.refused_objects import explain_refused_objects
from pytest_bpfmaps.loaders.rejections import Refusal

# what the verifier allows only to users who may see the kernel's addresses: bpf_allow_ptr_leaks()
_POINTERS = re.compile(
    r"pointer \S+ pointer prohibited|pointer comparison prohibited|leaks addr|leaks pointer|"
    r"prohibited for !root|corrupt spilled pointer|pointer arithmetic with \S+ operator prohibited"
)
# the words of libbpf, of bpftool, and of cilium/ebpf
_LOCKED_MEMORY = re.compile(r"try raising 'ulimit -l'|MEMLOCK may be too low|RLIMIT_MEMLOCK")
_SYS_ADMIN = 1 << ALL_CAPABILITIES.index("SYS_ADMIN")
_MAY_MAKE_MAPS = 1 << ALL_CAPABILITIES.index("BPF") | _SYS_ADMIN
_MAY_SEE = 1 << ALL_CAPABILITIES.index("PERFMON") | _SYS_ADMIN


def without_perfmon(refusal: Refusal, capabilities: int | None) -> Refusal:
    """Returns the refusal. It names CAP_PERFMON if the verifier allows with that what it has refused.

    `capabilities` are those that the agent had; None if that is not known.
    """
    if capabilities is None or capabilities & _MAY_SEE or not _POINTERS.search(refusal.log):
        return refusal
    found = refusal.explanation
    why = f"{found.why}; it has no CAP_PERFMON, with which programs may do more with pointers"
    return replace(refusal, explanation=Explanation(why, f"add PERFMON to caps=; or {found.fix}"))


def explain_written(
    text: str,
    forbidden: Explanation | None,
    capabilities: int | None,
    user: str | int | None,
    files: Sequence[Path],
) -> Explanation | None:
    """Explains what an agent wrote; None if it is not known.

    `forbidden` is what its seccomp profile may have refused. `capabilities` are those that it had, as `user`.
    `files` are its binary and its arguments.
    """
    return (
        explain_output(text)
        or explain_user(text, user)
        or explain_attach(text)
        or explain_refused_objects(text, files)
        or _explain_locked_memory(text, capabilities, files)
        or forbidden
        or explain_refusal(text, capabilities, user, lambda: needed_capabilities(files))
    )


def _explain_locked_memory(text: str, capabilities: int | None, files: Sequence[Path]) -> Explanation | None:
    """Explains that maps count as locked memory, as before Linux 5.11 (commit 97306be45fbe); else None.

    cilium/ebpf writes of that limit whenever it is refused something, so a missing capability comes first.
    """
    may_make_maps = capabilities is None or capabilities & _MAY_MAKE_MAPS
    if not (_LOCKED_MEMORY.search(text) and may_make_maps):
        return None
    if probe("helper", "bpf_ktime_get_coarse_ns"):  # which came with Linux 5.11, too
        return None
    if _lacks(capabilities, needed_capabilities(files)):
        return None
    return Explanation(
        f"Linux {release()} counts maps as locked memory, 5.11 and later do not, and the agent's limit of it "
        "is too low",
        "let it raise RLIMIT_MEMLOCK when it starts, with CAP_SYS_RESOURCE: libbpf 1.0 does, "
        "rlimit.RemoveMemlock() in Go; or start it with a higher one: LimitMEMLOCK= of systemd",
    )


def _lacks(capabilities: int | None, needed: Iterable[str]) -> bool:
    """Returns whether one of these is missing; before Linux 5.11, CAP_SYS_ADMIN stands for each."""
    wanted = [1 << ALL_CAPABILITIES.index(name) | _SYS_ADMIN for name in needed]
    return capabilities is not None and not all(capabilities & bits for bits in wanted)
