"""Explains that this kernel lacks a helper, or does not allow it in a type of program."""

from __future__ import annotations

import re

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.feature_releases import came_with
from pytest_bpfmaps.kernel.features import probe
from pytest_bpfmaps.kernel.known_names import is_helper
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.objects.diagnosis.allowed_callers import other_callers

_CALLED = re.compile(r"(?:unknown func|invalid func|cannot use helper|helper) (bpf_\w+)")
_IN_SOURCE = re.compile(r"\b(bpf_\w+)\s*\(")

_ARGUMENTS = (
    'it is for SEC("fentry/FUNCTION"), SEC("fexit/…") and SEC("fmod_ret/…"); in a kprobe, read the arguments '
    "with BPF_KPROBE(prog, TYPE first, …), in a raw tracepoint they are ctx->args[0], …"
)
_INSTEAD = {
    "bpf_override_return": 'to refuse an operation, return a negative number from SEC("lsm/HOOK"), or from '
    'SEC("fmod_ret/security_HOOK"); a kprobe takes bpf_override_return() where the kernel has that option',
    "bpf_get_func_arg": _ARGUMENTS,
    "bpf_get_func_arg_cnt": _ARGUMENTS,
    "bpf_get_func_ret": 'it is for SEC("fexit/FUNCTION") and SEC("fmod_ret/…"); in a kretprobe, read the '
    "result with BPF_KRETPROBE(prog, TYPE result)",
}
_IN_XDP = {
    **{
        f"bpf_skb_{verb}_bytes": f"{verb} them through the packet's own pointer, ctx->data, or with "
        f"bpf_xdp_{verb}_bytes() (Linux 5.18)"
        for verb in ("load", "store")
    },
    "bpf_skb_pull_data": "leave it out: an XDP program can reach its packet from data to data_end",
    "bpf_skb_change_head": "use bpf_xdp_adjust_head()",
    "bpf_skb_change_tail": "use bpf_xdp_adjust_tail()",
    **dict.fromkeys(
        ("bpf_l3_csum_replace", "bpf_l4_csum_replace"),
        "calculate the checksum with bpf_csum_diff(), and write it through the packet's own pointer",
    ),
}


def refused_helper(complaint: str, source: str, type: ProgramType | int) -> Explanation | None:
    """Explains that the verifier does not let a program call a helper; `source` is the C line."""
    if not re.search(r"unknown func|invalid func|cannot use helper", complaint):
        return None
    found = _CALLED.search(complaint)
    name = found[1] if found else _only_helper(source)
    if name is None:
        return None
    if probe("helper", name):
        told = (type == ProgramType.XDP and _IN_XDP.get(name)) or _INSTEAD.get(name)
        return Explanation(
            f"this kernel has {name}, but does not allow it in this type of program ({type})",
            told or other_callers(name),
        )
    if name == "bpf_override_return":
        option = "CONFIG_BPF_KPROBE_OVERRIDE"
        why = f"Linux {release()} is built without {option}, which bpf_override_return() needs"
        return Explanation(why, _INSTEAD[name])
    return Explanation(
        came_with(f"Linux {release()} has no such helper as {name}", f"helper {name}"),
        f'mark the test bpf_requires("{name}")',
    )


def _only_helper(source: str) -> str | None:
    """Returns the helper that a C line calls: the only one, or else the one that this kernel lacks."""
    called: list[str] = list(dict.fromkeys(_IN_SOURCE.findall(source)))
    if len(called) == 1:
        return called[0]
    return next((name for name in called if is_helper(name) and not probe("helper", name)), None)
