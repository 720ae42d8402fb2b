"""Explains what an agent wrote before it ended. The most certain explanation comes first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.privileges import ALL_CAPABILITIES
from pytest_bpfmaps.loaders.attach_refusals import explain_attach
from pytest_bpfmaps.loaders.endings import explain_output, explain_refusal, explain_user
from pytest_bpfmaps.loaders.needed_capabilities import needed_capabilities
from pytest_bpfmaps.loaders.rejections import Refusal

# what the verifier allows only to users who may see the kernel's addresses: bpf_allow_ptr_leaks()
_POINTERS = re.compile(
    r"pointer \S+ pointer prohibited|pointer comparison prohibited|leaks addr|leaks pointer|"
    r"prohibited for !root|corrupt spilled pointer|pointer arithmetic with \S+ operator prohibited"
)
_MAY_SEE = 1 << ALL_CAPABILITIES.index("PERFMON") | 1 << ALL_CAPABILITIES.index("SYS_ADMIN")


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
        or forbidden
        or explain_refusal(text, capabilities, user, lambda: needed_capabilities(files))
    )
