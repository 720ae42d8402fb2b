"""Finds out whether this process can attach to an attach point, written as in ``SEC()``."""

from __future__ import annotations

import errno
from pathlib import Path

from pytest_bpfmaps.errors import strerror
from pytest_bpfmaps.kernel.attach_names import bpf_lsm_active, functions
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.known_names import SYSCALL_PREFIXES
from pytest_bpfmaps.kernel.mounts import has_sysfs, how_to_mount
from pytest_bpfmaps.kernel.probe_programs import (
    HAS_FRAGS,
    RETURN_1,
    SLEEPABLE,
    Trial,
    Verdict,
    trial_of,
    try_program,
    try_type,
)
from pytest_bpfmaps.kernel.section_types import section_type
from pytest_bpfmaps.kernel.tracefs import no_tracefs, tracefs
from pytest_bpfmaps.kernel.vmlinux_btf import (
    FUNC,
    TYPEDEF,
    enumerators,
    has_type,
    owner_has_type,
    type_id,
    vmlinux_btf,
)

# kind of section: (prefix of the target's name in BTF, its BTF kind)
_BY_TYPE = {
    "tp_btf": ("btf_trace_", TYPEDEF),
    "iter": ("bpf_iter_", FUNC),
    "lsm": ("bpf_lsm_", FUNC),
    "lsm_cgroup": ("bpf_lsm_", FUNC),
    **dict.fromkeys(("fentry", "fexit", "fmod_ret"), ("", FUNC)),
}
# kind of section: (enum bpf_attach_type of links to many functions, a function that comes with them)
_MANY = {
    "kprobe.multi": (42, "register_fprobe_ips"),
    "kretprobe.multi": (42, "register_fprobe_ips"),
    "kprobe.session": (56, "register_fprobe_ips"),
    "uprobe.multi": (48, "bpf_uprobe_multi_link_attach"),
    "uretprobe.multi": (48, "bpf_uprobe_multi_link_attach"),
    "uprobe.session": (57, "bpf_uprobe_multi_link_attach"),
}
# for a section without a target: a target that each kernel has
_ALONE = {
    "lsm": "lsm/file_open",
    "lsm.s": "lsm.s/bprm_committed_creds",  # the only hook that may sleep in Linux 5.10
    "lsm_cgroup": "lsm_cgroup/socket_create",
    "iter": "iter/task",
    "iter.s": "iter.s/task",
    "tp_btf": "tp_btf/sched_switch",
    "raw_tp": "raw_tp/sched_switch",
    "raw_tracepoint": "raw_tracepoint/sched_switch",
    **{name: f"{name}/bpf_test_finish" for name in ("raw_tp.w", "raw_tracepoint.w")},
    "tracepoint": "tracepoint/sched/sched_switch",
    "tp": "tp/sched/sched_switch",
    "ksyscall": "ksyscall/openat",
    "kretsyscall": "kretsyscall/openat",
    **{name: f"{name}/vfs_read" for name in ("fentry", "fexit")},
    "fmod_ret": "fmod_ret/security_file_open",
}
# these may sleep only where the kernel can inject errors, which is in system calls
_IN_SYSTEM_CALLS = ("fentry.s", "fexit.s", "fmod_ret.s")
NO_ATTACH_POINT = "this kernel has no such attach point"
_TCX = {"tcx/ingress": 46, "tcx/egress": 47}
_NO_TRIAL = (ProgramType.EXT, ProgramType.STRUCT_OPS)  # their section does not name their target


def probe_target(section: str) -> str:
    """Returns why no program can be attached at `section`; an empty text if one can."""
    section = section.lstrip("?")
    section = f"{section}/{_getpgid()}" if section in _IN_SYSTEM_CALLS else _ALONE.get(section, section)
    kind, _, target = section.partition("/")
    mark = kind.rpartition(".")[2]
    kind = kind.removesuffix(".s").removesuffix(".frags")
    if kind in _MANY:
        return _many(*_MANY[kind]) or (_fitting(target) if "kprobe" in kind or "kret" in kind else "")
    found = section_type(section)
    if found is None:
        return "libbpf does not know this section name"
    type, attach_type = found[0], _TCX.get(section, found[1])
    if kind == "tc":  # it can be a filter, so the newer kind of link is not required
        attach_type = 0
    if "/" in section and not _listed(attach_type):
        return NO_ATTACH_POINT
    flags = {"s": SLEEPABLE, "frags": HAS_FRAGS}.get(mark, trial_of(type).flags)
    trial = Trial(type, attach_type, flags)
    return _by_type(kind, target, trial) if kind in _BY_TYPE else _refused(trial) or _target(kind, target)


def _getpgid() -> str:
    """Returns the name of the kernel's function for a system call that each kernel has."""
    names = [f"{prefix}getpgid" for prefix in SYSCALL_PREFIXES]
    return next((name for name in names if type_id(vmlinux_btf(), name, FUNC)), names[0])


def _many(attach_type: int, function: str) -> str:
    there = _listed(attach_type) and type_id(vmlinux_btf(), function, FUNC)
    if not there:
        return "this kernel has no links to many functions of that kind"
    return _refused(Trial(ProgramType.KPROBE, attach_type))


def _fitting(target: str) -> str:
    """Returns why no kernel function fits a name or pattern; empty if one does."""
    if not set(target) & set("*?"):
        return _symbol(target)
    pattern = target.rpartition(":")[2]
    return "" if functions().fitting(pattern) else f"there is no kernel function that fits {target}"


def _listed(attach_type: int) -> bool:
    """Returns whether the kernel knows a number of ``enum bpf_attach_type``."""
    if not attach_type:  # many program types have no attach type
        return True
    known = enumerators(vmlinux_btf(), "bpf_attach_type")
    return attach_type < known.get("__MAX_BPF_ATTACH_TYPE", 0)


def _by_type(kind: str, target: str, trial: Trial) -> str:
    """Returns why no program can be loaded for that target; empty if one can.

    It loads a program, because some functions can't be traced, and some may not sleep.
    """
    prefix, btf_kind = _BY_TYPE[kind]
    owner, _, target = target.rpartition(":")
    name = f"{prefix}{target}"
    if owner and not owner_has_type(owner, name, btf_kind):
        return f"the BTF of {owner} has no function {target}"
    if not has_type(name, btf_kind):
        what = {"bpf_lsm_": f"LSM hook {target}", "": f"function {target}"}.get(prefix, name)
        return f"the kernel's BTF has no {what}"
    refused = _refused(Trial(trial.type, trial.attach_type, trial.flags, (name, btf_kind)))
    if not refused and trial.type is ProgramType.LSM and bpf_lsm_active() is False:
        return "the BPF LSM is not active: boot with 'bpf' in the lsm= list"
    return refused


def _refused(trial: Trial) -> str:
    if trial.type in _NO_TRIAL:
        verdict = try_type(trial.type)
        return "" if verdict.has_type else _no_such_type(trial.type, verdict)
    verdict = try_program(trial)
    if "At program exit the register R0" in verdict.log:  # such as cgroup/recvmsg4: it has to return 1
        verdict = try_program(trial, RETURN_1)
    if not verdict.errno:
        return ""
    general = try_type(trial.type)
    if not general.has_type and general.errno == verdict.errno:
        return _no_such_type(trial.type, verdict)
    return f"the kernel refuses such a program: {verdict.complaint or strerror(verdict.errno)}"


def _no_such_type(type: ProgramType, verdict: Verdict) -> str:
    why = "" if verdict.errno == errno.EINVAL else f": {strerror(verdict.errno)}"
    return f"the kernel refuses programs of type {type}{why}"


def _target(kind: str, target: str) -> str:
    match kind:
        case "tracepoint" | "tp":
            return _tracepoint(target)
        case "raw_tracepoint" | "raw_tp" | "raw_tracepoint.w" | "raw_tp.w":
            there = type_id(vmlinux_btf(), f"btf_trace_{target}", TYPEDEF)
            return "" if there else f"there is no raw tracepoint {target}"
        case "kprobe" | "kretprobe":
            return _event_source("kprobe", "kprobe_events") or _symbol(target.split("+", maxsplit=1)[0])
        case "ksyscall" | "kretsyscall":
            known = any(f"{prefix}{target}" in functions() for prefix in SYSCALL_PREFIXES)
            return _event_source("kprobe", "kprobe_events") or (
                "" if known else f"there is no system call {target}"
            )
        case "uprobe" | "uretprobe" | "usdt":
            return _event_source("uprobe", "uprobe_events")
        case "netkit":  # a program for it loads everywhere
            there = has_type("netkit_link_attach", FUNC)
            return "" if there else "the kernel is built without CONFIG_NETKIT"
    return ""


def _tracepoint(target: str) -> str:
    root = tracefs()
    if root is None:
        why, _ = no_tracefs()
        command = "" if "mounted, " in why else how_to_mount("tracefs")
        return f"{why}: {command}" if command else why
    return "" if (root / "events" / target / "id").exists() else f"there is no tracepoint {target}"


def _event_source(name: str, legacy: str) -> str:
    if Path(f"/sys/bus/event_source/devices/{name}").exists():
        return ""
    root = tracefs()
    if root is not None and (root / legacy).exists():
        return ""
    if not has_sysfs():
        return f"sysfs, which shows whether there are {name}s, is not mounted: {how_to_mount('sysfs')}"
    if root is None and (command := how_to_mount("tracefs")):
        return f"this kernel has no {name}s as perf events, and tracefs is not mounted: {command}"
    return f"this kernel has no {name}s, neither as perf events nor in tracefs"


def _symbol(name: str) -> str:
    owner, _, name = name.rpartition(":")
    if not name or "*" in name or (owner in functions().owners(name) if owner else name in functions()):
        return ""
    return f"there is no kernel function {name}"
