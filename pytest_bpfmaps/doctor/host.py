"""Checks of compiling, and of this kernel: loading, tracing, network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pytest_bpfmaps.doctor.check import Check, CheckState, ask
from pytest_bpfmaps.doctor.packages import install
from pytest_bpfmaps.errors import CompileError, UnsupportedError, remedy
from pytest_bpfmaps.kernel import features, privileges, release
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.kmsg import PATH, KernelLog
from pytest_bpfmaps.kernel.mounts import MOUNTINFO, has_sysfs, how_to_mount, parse_mounts
from pytest_bpfmaps.kernel.tracefs import no_tracefs, tracefs

VIRTUAL_MACHINE = "run such tests in a virtual machine: pytest --bpf-kernel=6.1"
_TRACING = ("tracepoint", "kprobe", "perf_event", "raw_tracepoint", "tracing", "lsm")
_NETWORK = ("xdp", "sched_cls", "cgroup_skb", "sock_ops", "sk_skb", "sk_lookup", "socket_filter")
_FILE_SYSTEMS = {
    "bpf": "bpffs",
    "cgroup2": "cgroup v2",
}


def compile_checks(clang: str | None = None) -> Iterator[Check]:
    """Checks clang, its BPF target, and libbpf's headers."""

    def find() -> str:
        from pytest_bpfmaps.compiler.clang import find_clang
        from pytest_bpfmaps.paths import objects_dir

        try:
            found = find_clang(clang, objects_dir() / "clang")
        except CompileError as e:
            raise CompileError("", why=e.why, fix=install("clang")) from e
        return f"{found.version} ({found.path})"

    yield from ask("compile", "clang", find)
    header = Path("/usr/include/bpf/bpf_helpers.h")
    there = header.exists()
    yield Check(
        "compile",
        "libbpf headers",
        CheckState.OK if there else CheckState.MISSING,
        str(header) if there else "bpf/bpf_helpers.h is not in /usr/include",
        "" if there else install("headers"),
    )


def library_checks() -> Iterator[Check]:
    """Checks libbpf."""

    def find() -> str:
        from pytest_bpfmaps.libbpf import version

        try:
            return "{}.{}".format(*version())
        except UnsupportedError as e:
            raise UnsupportedError("", why=e.why, fix=install("libbpf")) from e

    yield from ask("load", "libbpf", find)


def kernel_checks() -> Iterator[Check]:
    """Checks privileges, BTF, and which types of programs load."""
    has = [name for name in privileges.CAPABILITIES if privileges.has_capability(name)]
    allowed = "CAP_SYS_ADMIN" in has or {"CAP_BPF", "CAP_NET_ADMIN"} <= set(has)
    yield Check(
        "load",
        "privileges",
        CheckState.OK if allowed else CheckState.LIMITED,
        f"uid {os.geteuid()}, {', '.join(has) or 'none of the capabilities for BPF'}",
        "" if allowed else f"run as root or with CAP_BPF and CAP_NET_ADMIN, or {VIRTUAL_MACHINE}",
    )
    btf = Path("/sys/kernel/btf/vmlinux").exists()
    yield Check(
        "load",
        "kernel BTF",
        CheckState.OK if btf else CheckState.LIMITED,
        release.release() if btf else "there is no /sys/kernel/btf/vmlinux: no CO-RE, no vmlinux.h",
        "" if btf else _how_to_have_btf(),
    )
    yield _log_check()
    if allowed:
        yield _program_types("network", _NETWORK)
        yield _program_types("trace", _TRACING)
    else:
        yield Check(
            "network", "program types", CheckState.LIMITED, "not tried: no privileges", VIRTUAL_MACHINE
        )


def _how_to_have_btf() -> str:
    if not has_sysfs():
        return how_to_mount("sysfs")
    return f"boot a kernel with CONFIG_DEBUG_INFO_BTF=y, or {VIRTUAL_MACHINE}"


def _log_check() -> Check:
    name = "kernel log"
    try:
        KernelLog().close()
    except OSError as e:
        found = f"{PATH}: {e.strerror}: the kernel's warnings do not fail tests"
        fix = remedy(e.errno, f"run as root outside a container, or {VIRTUAL_MACHINE}") or ""
        return Check("load", name, CheckState.LIMITED, found, fix)
    return Check("load", name, CheckState.OK, "the kernel's warnings fail tests")


def _program_types(area: str, names: tuple[str, ...]) -> Check:
    assert all(ProgramType.from_name(n) for n in names)
    answers = {name: bool(features.probe("program_type", name)) for name in names}
    refused = [name for name, answer in answers.items() if not answer]
    if not refused:
        return Check(area, "program types", CheckState.OK, ", ".join(names))
    loads = [name for name in names if name not in refused]
    found = f"refused: {', '.join(refused)}; load: {', '.join(loads) or 'none'}"
    return Check(area, "program types", CheckState.LIMITED, found, VIRTUAL_MACHINE)


def tracing_checks() -> Iterator[Check]:
    """Checks tracefs, and whether kprobes and uprobes can be attached."""
    root = tracefs()
    why, fix = no_tracefs()
    yield Check(
        "trace",
        "tracefs",
        CheckState.OK if root else CheckState.LIMITED,
        str(root) if root else why,
        "" if root else fix or "",
    )
    for kind in ("kprobe", "uprobe"):
        there = Path(f"/sys/bus/event_source/devices/{kind}").exists() or bool(
            root and (root / f"{kind}_events").exists()
        )
        found = f"this kernel has no {kind}s" if has_sysfs() else "unknown, because sysfs is not mounted"
        found = "can be attached" if there else found
        yield Check(
            "trace",
            f"{kind}s",
            CheckState.OK if there else CheckState.LIMITED,
            found,
            "" if there else VIRTUAL_MACHINE,
        )


def mount_checks() -> Iterator[Check]:
    """Checks that the bpf file system and cgroup v2 are mounted."""
    mounts: dict[str, str] = {}
    for mount in parse_mounts(MOUNTINFO.read_text(errors="surrogateescape")):
        mounts.setdefault(mount.kind, mount.point)
    for kind, name in _FILE_SYSTEMS.items():
        where = mounts.get(kind)
        yield Check(
            "load" if kind == "bpf" else "network",
            name,
            CheckState.OK if where else CheckState.LIMITED,
            f"mounted at {where}" if where else "not mounted",
            "" if where else how_to_mount(kind) or f"boot a kernel that has it, or {VIRTUAL_MACHINE}",
        )
