"""Says which programs may call a helper or kfunc that the verifier refuses. The kernel answers by trials."""

from __future__ import annotations

import re

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.features import helper_number
from pytest_bpfmaps.kernel.probe_functions import is_allowed, types_that_call, types_that_call_kfunc
from pytest_bpfmaps.kernel.probe_programs import Trial
from pytest_bpfmaps.kernel.vmlinux_btf import FUNC
from pytest_bpfmaps.verifier import Rejection

_MOST_TYPES = 8
_REFUSED = re.compile(r"calling kernel function (\w+) is not allowed")
# btf_allowlist_d_path in the kernel; a configuration may lack one
_FUNCTIONS = (
    "security_file_open",
    "security_file_permission",
    "vfs_getattr",
    "dentry_open",
    "filp_close",
    "vfs_truncate",
    "vfs_fallocate",
)
_PATHS = {
    **{f"fentry/{name}": Trial(ProgramType.TRACING, 24, target=(name, FUNC)) for name in _FUNCTIONS},
    "lsm/file_open": Trial(ProgramType.LSM, 27, target=("bpf_lsm_file_open", FUNC)),
}


def explain_path(found: Rejection) -> Explanation | None:
    """Explains that bpf_d_path() is not for this function of the kernel, and names those it is for."""
    refused = "call bpf_d_path" in found.instruction and "helper call is not allowed in probe" in found.text
    number = helper_number("bpf_d_path") if refused else None
    if number is None:
        return None
    allowed = [f'SEC("{section}")' for section, trial in _PATHS.items() if is_allowed(number, trial)]
    return Explanation(
        "the kernel allows bpf_d_path() only in programs on a few of its functions",
        f"this kernel allows it in {', '.join(allowed)}" if allowed else 'use SEC("fentry/filp_close")',
    )


def explain_kfunc(found: Rejection) -> Explanation | None:
    """Explains that programs of this type may not call a kernel function, and names the types that may."""
    refused = _REFUSED.search(found.text)
    types = types_that_call_kfunc(refused[1]) if refused else []
    if refused is None or not types:
        return None
    return Explanation(
        f"programs of this type may not call {refused[1]}", f"this kernel allows it in {_listed(types)}"
    )


def other_callers(name: str) -> str:
    """Returns a sentence about the types of program that may call a helper."""
    number = helper_number(name)
    types = [] if number is None else types_that_call(number)
    if not types:
        return "bpf-helpers(7) and 'bpftool feature probe' list the helpers of each type of program"
    return f"this kernel allows it in {_listed(types)}"


def _listed(types: list[ProgramType]) -> str:
    return f"programs of type {', '.join(map(str, types[:_MOST_TYPES]))}" + ", …" * (len(types) > _MOST_TYPES)
